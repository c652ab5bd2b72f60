/** Light, dark, or as the system has it: a button that goes through the three, remembered by this browser. */
import { byId, setText } from "./elements.js";

const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];
const KEY = "headrace-theme";

/** What a browser that keeps nothing for this page forgets. */
export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Private windows and strict settings: it holds until the page is closed.
  }
}

export function remembered(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Puts the remembered theme in place. `onChange`: colours that are not CSS's have to be read again. */
export function startTheme(onChange: () => void): void {
  const button = byId("theme", HTMLButtonElement);
  const show = (theme: Theme): void => {
    document.documentElement.dataset.theme = theme;
    setText(button, `Theme: ${theme}`);
    onChange();
  };
  let theme: Theme = THEMES.find((each) => each === remembered(KEY)) ?? "auto";
  show(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
    remember(KEY, theme);
    show(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
}
