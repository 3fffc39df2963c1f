// Shared by the scripts that build what a reader answers or moves.
"use strict";

/** An element with properties and children; text children are text, never HTML. */
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}
