// Elements: made, filled and kept in step with a list. No markup is ever built from text.

/**
 * Makes an element.
 * @param {string} tag
 * @param {Object} [properties] `class`, `text`, `on` (listeners by event), `data` (data attributes); all others are
 *   attributes: `true` sets an empty one, `false`, null and undefined leave it out.
 * @param {...(Node|string|null)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name === "data") Object.assign(made.dataset, value);
    else setAttribute(made, name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets an attribute, or takes it away where the value is false, null or undefined. */
export function setAttribute(target, name, value) {
  if (value === false || value === null || value === undefined) target.removeAttribute(name);
  else target.setAttribute(name, value === true ? "" : String(value));
}

/** Writes a text only where it differs, so that nothing is announced or laid out again for nothing. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** An icon of the page's own symbols. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon, named by a text for those who do not see it. */
export function iconButton(name, label, onClick, properties = {}) {
  return element("button", { type: "button", class: "quiet", "aria-label": label, title: label, on: { click: onClick }, ...properties }, icon(name));
}

/**
 * Keeps the children of an element in step with a list; elements of items that stay are kept, and so is the focus.
 * @param {Element} parent
 * @param {Array} items
 * @param {{key: function, create: function, update: function}} how
 */
export function reconcile(parent, items, { key, create, update }) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (!child) {
      child = create(item);
      child.dataset.key = name;
    }
    old.delete(name);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

/** Fills a select, and only where it differs, so that an open one is not closed. */
export function fillOptions(select, options, chosen) {
  const known = JSON.stringify(options);
  if (select.dataset.options !== known) {
    select.dataset.options = known;
    select.replaceChildren(...options.map(([value, label]) => element("option", { value, text: label })));
  }
  if (select.value !== chosen) select.value = chosen;
}

/** Shorthand for the one element with an id. */
export const byId = (id) => document.getElementById(id);
