// Opens folded depth when a reader is led into it: by a link, by a word that search marks, and on paper.
"use strict";

/** The folds that hide an element, from the outside in. */
function foldsAround(element) {
  const folds = [];
  for (let at = element; at; at = at.parentElement) if (at.matches("details.depth")) folds.unshift(at);
  return folds;
}

/** Open the depth that the address points to: its heading, or anything inside. */
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const folds = [...foldsAround(target), ...target.querySelectorAll(":scope > details.depth")];
  if (folds.every((fold) => fold.open)) return;
  folds.forEach((fold) => { fold.open = true; });
  target.scrollIntoView();
}

/**
 * Mark the words of the search that led here, and open what holds one. Sphinx would mark them itself, were it
 * not for the theme, which loads the search on every page: Sphinx then takes each for the page of results.
 */
function markSearched() {
  if (document.getElementById("search-results")) return;
  SphinxHighlight.highlightSearchWords(); // does so after 10 ms
  setTimeout(() => {
    for (const word of document.querySelectorAll("details.depth .highlighted")) {
      foldsAround(word).forEach((fold) => { fold.open = true; });
    }
  }, 20);
}

/** Send the words of a search along in the address: browsers share storage between files late, or not at all. */
function sendSearched(link) {
  const address = new URL(link.href);
  address.searchParams.set("highlight", new URLSearchParams(location.search).get("q"));
  link.href = address;
}

/** Let the keyboard scroll the formulas that are wider than the page. */
function reachWideFormulas() {
  for (const formula of document.querySelectorAll("div.math mjx-container")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
}

let openedForPaper = [];

addEventListener("DOMContentLoaded", openTarget);
addEventListener("hashchange", openTarget);
addEventListener("load", markSearched);
addEventListener("click", (event) => {  // a second click on a link changes no address
  const link = event.target.closest("a[href*='#']");
  if (link && link.href === location.href) openTarget();
  const found = event.target.closest("#search-results a");
  if (found) sendSearched(found);
});
addEventListener("beforeprint", () => {
  openedForPaper = [...document.querySelectorAll("details.depth:not([open])")];
  openedForPaper.forEach((fold) => { fold.open = true; });
});
addEventListener("afterprint", () => {
  openedForPaper.forEach((fold) => { fold.open = false; });
});
addEventListener("resize", reachWideFormulas);
addEventListener("toggle", reachWideFormulas, true); // what was folded had no width
addEventListener("load", () => window.MathJax?.startup?.promise?.then(reachWideFormulas));
