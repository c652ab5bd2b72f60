/** Making and changing elements. Text is only ever set as text, and what has not changed is not touched. */

type Attributes = Readonly<Record<string, string>>;

/** The element of index.html with that id; throws when there is none of that kind. */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no ${kind.name} with the id ${id}`);
  return found;
}

/** A new element. */
export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function setData(element: HTMLElement, name: string, value: string): void {
  if (element.dataset[name] !== value) element.dataset[name] = value;
}

export function setHidden(element: HTMLElement, hidden: boolean): void {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** Keeps one element per item, in their order: those that stay are updated in place, so that focus and scroll stay. */
export class KeyedList<T> {
  readonly #parent: Element;
  readonly #keyOf: (item: T) => string;
  readonly #make: (item: T) => { readonly element: Element; update(item: T): void };
  readonly #entries = new Map<string, { readonly element: Element; update(item: T): void }>();

  constructor(
    parent: Element,
    keyOf: (item: T) => string,
    makeEntry: (item: T) => { readonly element: Element; update(item: T): void },
  ) {
    this.#parent = parent;
    this.#keyOf = keyOf;
    this.#make = makeEntry;
  }

  show(items: readonly T[]): void {
    const gone = new Set(this.#entries.keys());
    let place = this.#parent.firstElementChild;
    for (const item of items) {
      const key = this.#keyOf(item);
      gone.delete(key);
      let entry = this.#entries.get(key);
      if (!entry) {
        entry = this.#make(item);
        this.#entries.set(key, entry);
      }
      entry.update(item);
      if (entry.element === place) place = place.nextElementSibling;
      else this.#parent.insertBefore(entry.element, place);
    }
    for (const key of gone) {
      this.#entries.get(key)?.element.remove();
      this.#entries.delete(key);
    }
  }
}
