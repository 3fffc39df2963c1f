// Draws the page's mermaid diagrams. The theme inverts their colours on a dark page.
window.addEventListener("DOMContentLoaded", () => {
  mermaid.initialize({ startOnLoad: false, theme: "default", securityLevel: "strict" });
  mermaid.run({ querySelector: "pre.mermaid" });
});
