// Predict first: a chapter asks for the reader's number before it shows a claim's, and remembers it.
"use strict";

// ------------------------------------------------------------------ numbers, as pure functions

/** The number a reader wrote ("1e6", "1,000", "1 000", "1/3", "-3.5e-2", a unit after it), or null. */
function parseNumber(text, unit = "") {
  let written = text.trim().replace(/[−–]/g, "-");
  if (unit && written.toLowerCase().endsWith(unit.toLowerCase())) written = written.slice(0, -unit.length);
  const parts = written.split("/").map((part) => {
    const grouped = /^\s*[+-]?\d{1,3}(,\d{3})+(\.\d*)?(e[+-]?\d+)?\s*$/i.test(part);
    const plain = (grouped ? part.replaceAll(",", "") : part).replace(/(\d)[\s_](?=\d{3}(?!\d))/g, "$1").trim();
    return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
  });
  const value = parts.length === 1 ? parts[0] : parts.length === 2 ? parts[0] / parts[1] : NaN;
  return Number.isFinite(value) ? value : null;
}

/** How a number is shown: whole numbers in full, others with `digits` significant digits. */
function showNumber(value, digits = 4) {
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e15)) return Number(value.toPrecision(digits)).toExponential();
  const options = Number.isInteger(value) ? {} : { maximumSignificantDigits: digits };
  return value.toLocaleString("en-US", options);
}

/** How far a guess is from the right number: {factor, said}; factor is null where a ratio means nothing. */
function compareNumbers(guess, right, unit = "") {
  if (Math.abs(guess - right) <= 0.05 * Math.abs(right)) {
    return { factor: 1 + Math.abs(right ? guess / right - 1 : 0), said: guess === right ? "Right." : "Right, within 5 %." };
  }
  const way = guess > right ? "high" : "low";
  if (guess <= 0 || right <= 0) {
    return { factor: null, said: `Too ${way} by ${showNumber(Math.abs(guess - right))} ${unit}`.trimEnd() + "." };
  }
  const factor = Math.max(guess / right, right / guess);
  const shown = factor < 10 ? Number(factor.toPrecision(2)) : Number(factor.toPrecision(3));
  return { factor, said: `Too ${way} by a factor of ${showNumber(shown)}.` };
}

// ------------------------------------------------------------------ what is kept, in this browser only

/** The answers {claim id: {value: number, or null for "shown without a guess"; at: ISO time}}. */
const answers = {
  key: "labkit-predictions",
  memory: {},
  kept: true, // false when this browser stores nothing: then answers live as long as the page

  all() {
    if (!answers.kept) return { ...answers.memory };
    try {
      return answers.valid(JSON.parse(localStorage.getItem(answers.key) || "{}"));
    } catch (error) {
      if (!(error instanceof SyntaxError)) answers.kept = false;
      return { ...answers.memory };
    }
  },

  replace(entries) {
    answers.memory = { ...entries };
    try {
      localStorage.setItem(answers.key, JSON.stringify(entries));
    } catch {
      answers.kept = false;
    }
  },

  put(id, value) {
    answers.replace({ ...answers.all(), [id]: { value, at: new Date().toISOString() } });
  },

  forget(id) {
    const { [id]: _, ...others } = answers.all();
    answers.replace(others);
  },

  /** Take over saved entries; of two answers to one question the later one stays. Returns how many are new. */
  merge(entries) {
    const here = answers.all();
    const newer = Object.entries(entries).filter(([id, answer]) => !here[id] || here[id].at < answer.at);
    if (newer.length) answers.replace({ ...here, ...Object.fromEntries(newer) });
    return newer.length;
  },

  /** An answer as the end of an address: browsers share storage between files late, or not at all. */
  carry(id) {
    return `#answers=${encodeURIComponent(JSON.stringify({ [id]: answers.all()[id] }))}`;
  },

  /** Take over the answer that came along in the address, once. */
  carried() {
    if (!location.hash.startsWith("#answers=")) return;
    try {
      answers.merge(answers.valid(JSON.parse(decodeURIComponent(location.hash.slice("#answers=".length)))));
    } catch { /* not ours: no answer */ }
    history.replaceState(null, "", location.pathname + location.search);
  },

  /** Only the entries that are answers: a stored text, or a file, may hold anything. */
  valid(entries) {
    const good = ([id, answer]) => /^[a-z0-9-]+$/.test(id) && answer && typeof answer.at === "string" &&
      (answer.value === null || Number.isFinite(answer.value));
    return Object.fromEntries(Object.entries(entries ?? {}).filter(good)
      .map(([id, { value, at }]) => [id, { value, at }]));
  },
};

// ------------------------------------------------------------------ the question in a chapter

/** What is hidden until the question is answered: the claim's cell, and outputs between, if nothing else is. */
function covered(ask, claim) {
  const [from, to] = [ask.closest(".cell") ?? ask, claim.closest(".cell") ?? claim];
  const between = [];
  for (let next = from.nextElementSibling; next && next !== to; next = next.nextElementSibling) between.push(next);
  const simple = from.parentElement === to.parentElement && between.every((cell) => cell.matches(".cell"));
  return simple ? [...between, to] : [to];
}

class Question {
  constructor(ask, claim) {
    Object.assign(this, { ask, claim, id: claim.id, unit: ask.dataset.unit, cells: covered(ask, claim) });
    const stored = answers.all()[this.id];
    if (stored) this.answered(stored.value);
    else this.open();
  }

  cover(hidden) {
    this.cells.forEach((cell) => cell.classList.toggle("labkit-waiting", hidden));
  }

  /** Put the form under the question. */
  open() {
    const input = make("input", { id: `guess-${this.id}`, type: "text", autocomplete: "off", spellcheck: false });
    const wrong = make("p", { id: `wrong-${this.id}`, className: "labkit-wrong", role: "alert" });
    const skip = make("button", { type: "button" }, "Show without a guess");
    const form = make("form", { noValidate: true },
      make("label", { htmlFor: input.id }, this.unit ? `Your guess (${this.unit})` : "Your guess"),
      make("div", { className: "labkit-row" }, input, make("button", { type: "submit" }, "Show"), skip), wrong);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const value = parseNumber(input.value, this.unit);
      if (value !== null) return this.answer(value);
      wrong.textContent = "Please write one number, such as 1200, 1,200, 1.2e3 or 1/3.";
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", wrong.id);
      input.focus();
    });
    skip.addEventListener("click", () => this.answer(null));
    this.show(form);
    this.cover(true);
    return input;
  }

  answer(value) {
    answers.put(this.id, value);
    this.answered(value).focus();
  }

  /** Show the reader's number beside ours, and the claim's box. */
  answered(value) {
    const forget = make("button", { type: "button" }, "Forget this answer");
    const page = `${document.documentElement.dataset.content_root ?? "../"}book/predictions.html${answers.carry(this.id)}`;
    const box = make("div", { className: "labkit-answer", tabIndex: -1, role: "group" },
      make("p", {}, ...this.sentence(value)),
      make("p", { className: "labkit-row" }, forget, make("a", { href: page }, "All your predictions")));
    box.setAttribute("aria-label", "Your prediction");
    if (!answers.kept) {
      box.append(make("p", {}, "This browser does not let the page keep your answer: it is gone when you leave."));
    }
    forget.addEventListener("click", () => {
      answers.forget(this.id);
      this.open().focus();
    });
    this.show(box);
    this.cover(false);
    return box;
  }

  sentence(value) {
    const number = (x) => make("b", {}, `${showNumber(x)} ${this.unit}`.trimEnd());
    const { predicted, measured } = this.claim.dataset;
    const right = Number(predicted ?? measured);
    const ours = predicted ? ["We predicted ", number(right)] : ["We measured ", number(right)];
    if (predicted && measured) ours.push(" and measured ", number(Number(measured)));
    if (value === null) return [...ours, "; you have not guessed."];
    return ["You said ", number(value), ". ", ...ours, ". ", compareNumbers(value, right, this.unit).said];
  }

  show(content) {
    this.content?.remove();
    this.content = content;
    this.ask.append(content);
  }
}

/** A link to a claim that still waits for a guess leads to its question. */
function goToQuestion() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.closest(".labkit-waiting")) {
    document.querySelector(`.labkit-ask[data-claim="${CSS.escape(target.id)}"]`)?.scrollIntoView();
  }
}

addEventListener("DOMContentLoaded", () => {
  for (const ask of document.querySelectorAll(".labkit-ask")) {
    const claim = document.getElementById(ask.dataset.claim);
    if (claim?.dataset.predicted ?? claim?.dataset.measured) new Question(ask, claim);
  }
  goToQuestion();
});
addEventListener("hashchange", goToQuestion);
