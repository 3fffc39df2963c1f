// Temperature: how it changes what a model says next. Draws every .labkit-temperature on the page.
"use strict";

const labkitTemperature = {
  /** exp(logit / temperature), scaled to sum 1. */
  softmax(logits, temperature) {
    const top = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp((logit - top) / temperature));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => weight / sum);
  },

  /** Entropy of a distribution, in bits. */
  entropyBits(probabilities) {
    return probabilities.reduce((sum, p) => (p > 0 ? sum - p * Math.log2(p) : sum), 0);
  },

  /** One index, drawn with these probabilities; `random` gives numbers in [0, 1). */
  sample(probabilities, random = Math.random) {
    let left = random();
    for (let i = 0; i < probabilities.length; i++) {
      left -= probabilities[i];
      if (left < 0) return i;
    }
    return probabilities.lastIndexOf(Math.max(...probabilities)); // rounding: the sum was below 1
  },
};

{
  const ROWS = 12;
  const DRAWS = 20;
  const { softmax, entropyBits, sample } = labkitTemperature;
  let count = 0;

  /** A token as it can be seen. */
  const visible = (token) => token.replace(/[ \n\t]/g, (c) => ({ " ": "␣", "\n": "⏎", "\t": "⇥" })[c]);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  const build = (root) => {
    const contexts = JSON.parse(root.querySelector("script").textContent);
    const name = `labkit-temperature-${++count}`;
    const choice = make("select", { id: `${name}-text` },
      ...contexts.map(({ context }, i) => make("option", { value: i }, context)));
    const slider = make("input", { id: `${name}-t`, type: "range", min: 0.1, max: 2, step: 0.1, value: 1 });
    const shown = make("output", { htmlFor: slider.id });
    const bars = make("tbody");
    const summary = make("p", { role: "status" });
    const draw = make("button", { type: "button" }, `Draw ${DRAWS}`);
    const drawn = make("p", { className: "labkit-drawn", role: "status" });

    const now = () => {
      const { tokens, logits } = contexts[choice.value];
      return { tokens, logits, shares: softmax(logits, Number(slider.value)) };
    };
    const redraw = () => {
      const { tokens, logits, shares } = now();
      const likeliest = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, ROWS);
      bars.replaceChildren(...likeliest.map((i) => {
        const bar = make("span", { className: "labkit-bar" });
        bar.style.width = `${100 * shares[i]}%`;
        return make("tr", {}, make("th", { scope: "row" }, make("code", {}, visible(tokens[i]))),
          make("td", {}, bar), make("td", {}, percent(shares[i])));
      }));
      shown.textContent = Number(slider.value).toFixed(1);
      slider.setAttribute("aria-valuetext", shown.textContent);
      const most = Number(Math.log2(shares.length).toFixed(2));
      summary.textContent = `Entropy ${entropyBits(shares).toFixed(2)} bits of at most ${most}; ` +
        `the likeliest byte has ${percent(shares[likeliest[0]])}.`;
      drawn.textContent = "";
    };
    draw.addEventListener("click", () => {
      const { tokens, shares } = now();
      drawn.textContent = Array.from({ length: DRAWS }, () => visible(tokens[sample(shares)])).join(" ");
    });
    [choice, slider].forEach((control) => control.addEventListener("input", redraw));

    const head = make("tr", {}, make("th", {}, "Next byte"), make("th", { colSpan: 2 }, "Its share"));
    root.replaceChildren(
      make("div", { className: "labkit-row" }, make("label", { htmlFor: choice.id }, "After the text"), choice),
      make("div", { className: "labkit-row" }, make("label", { htmlFor: slider.id }, "Temperature"), slider, shown),
      make("table", { className: "labkit-bars" }, make("thead", {}, head), bars), summary,
      make("div", { className: "labkit-row" }, draw), drawn);
    redraw();
  };

  addEventListener("DOMContentLoaded", () => document.querySelectorAll(".labkit-temperature").forEach(build));
}
