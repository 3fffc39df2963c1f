// The page of the reader's predictions: fills the table, saves it to a file, loads one, erases all.
"use strict";

/** "7 of 9 within 10 %, 1 more within a factor of 2." for compared guesses. */
function score(compared) {
  const near = compared.filter(({ factor }) => factor !== null && factor <= 1.1).length;
  const rough = compared.filter(({ factor }) => factor !== null && factor > 1.1 && factor <= 2).length;
  if (!compared.length) return "You have not answered any question yet.";
  return `${near} of ${compared.length} within 10 %${rough ? `, ${rough} more within a factor of 2` : ""}.`;
}

class PredictionsPage {
  constructor(table) {
    this.rows = [...table.querySelectorAll("tbody tr")];
    this.line = make("p", { className: "labkit-score" });
    this.said = make("p", { role: "status" });
    this.buttons = make("div", { className: "labkit-row" });
    this.file = make("input", { type: "file", accept: ".json,application/json", hidden: true });
    const outer = table.parentElement;
    outer.before(this.line);
    outer.after(this.buttons, this.said, this.file);
    this.file.addEventListener("change", () => this.load(this.file.files[0]));
    this.offer();
    answers.carried();
    this.fill();
    addEventListener("storage", () => this.fill()); // answered in another window
    addEventListener("pageshow", () => this.fill()); // came back to this page
  }

  fill() {
    const all = answers.all();
    const compared = [];
    for (const row of this.rows) {
      const { id, unit, number, predicted, measured } = row.dataset;
      const answer = all[id];
      const result = answer && answer.value !== null ? compareNumbers(answer.value, Number(number), unit) : null;
      const yours = result ? `${showNumber(answer.value)} ${unit}`.trimEnd() : "no guess";
      const cells = answer ? [yours, predicted, measured, result?.said ?? "–"] : ["not answered yet", "–", "–", "–"];
      [...row.cells].slice(1).forEach((cell, i) => { cell.textContent = cells[i]; });
      if (result) compared.push(result);
    }
    this.line.textContent = score(compared);
  }

  /** The three buttons. */
  offer() {
    const button = (text, action) => {
      const made = make("button", { type: "button" }, text);
      made.addEventListener("click", action);
      return made;
    };
    this.erase = button("Erase all", () => this.confirm(button));
    this.buttons.replaceChildren(button("Save as a file", () => this.save()),
      button("Load a file", () => this.file.click()), this.erase);
  }

  save() {
    const text = JSON.stringify(answers.all(), null, 1);
    const link = make("a", { download: `${answers.key}.json` });
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    this.said.textContent = `Saved as ${link.download}.`;
  }

  /** Take over a saved file. */
  async load(file) {
    this.file.value = "";
    let read = {};
    try {
      read = answers.valid(JSON.parse(await file.text()));
    } catch { /* not JSON: no answers */ }
    const newer = answers.merge(read);
    const found = Object.keys(read).length;
    this.said.textContent = found
      ? `${found} ${found === 1 ? "answer" : "answers"} in ${file.name}, ${newer} new here.`
      : `${file.name} holds no answers: choose a file that this page has saved.`;
    this.fill();
  }

  /** Ask once more, in the place of the buttons; Escape and "Keep them" change nothing. */
  confirm(button) {
    const count = Object.keys(answers.all()).length;
    const back = () => { this.offer(); this.erase.focus(); };
    const keep = button("Keep them", back);
    const really = button("Erase them", () => {
      answers.replace({});
      this.said.textContent = "All answers are erased.";
      this.fill();
      back();
    });
    const asked = make("div", { className: "labkit-row", role: "group" },
      make("span", {}, `Erase ${count === 1 ? "one answer" : `all ${count} answers`} for good?`), really, keep);
    asked.setAttribute("aria-label", "Erase all answers?");
    asked.addEventListener("keydown", (event) => { if (event.key === "Escape") back(); });
    this.buttons.replaceChildren(asked);
    keep.focus();
  }
}

addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.labkit-predictions");
  if (table) new PredictionsPage(table);
});
