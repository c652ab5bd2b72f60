/** The form that trades the token for a cookie, which no script can read. The token is kept nowhere. */
import { byId, setHidden, setText } from "./elements.js";
import { remember, remembered } from "./theme.js";

/** Only whether there was a session: so that a first visit asks for the token without being refused before. */
const KEY = "headrace-signed-in";

export interface SessionListener {
  onSignedIn(): void;
  onSignedOut(): void;
}

export class Session {
  readonly #form: HTMLFormElement = byId("sign-in-form", HTMLFormElement);
  readonly #token: HTMLInputElement = byId("token", HTMLInputElement);
  readonly #error: HTMLElement = byId("sign-in-error", HTMLElement);
  readonly #listener: SessionListener;

  constructor(listener: SessionListener) {
    this.#listener = listener;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#signIn();
    });
    byId("sign-out", HTMLButtonElement).addEventListener("click", () => void this.#signOut());
    // Another tab has signed in or out: the cookie is of both.
    addEventListener("storage", ({ key, newValue }) => {
      if (key !== KEY) return;
      if (newValue === "yes") this.#begin();
      else this.ask("Signed out in another tab.");
    });
  }

  /** Goes on with the session of before, if there was one. */
  start(): void {
    if (remembered(KEY) === "yes") this.#listener.onSignedIn();
    else this.ask("");
  }

  /** Shows the form, and why. */
  ask(why: string): void {
    if (remembered(KEY) === "yes") remember(KEY, "no");
    this.#listener.onSignedOut();
    setText(this.#error, why);
    setHidden(byId("sign-in", HTMLElement), false);
    this.#token.focus();
  }

  async #signIn(): Promise<void> {
    const token = this.#token.value;
    setText(this.#error, "");
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ token });
    const response = await fetch("/session", { method: "POST", headers, body }).catch(() => undefined);
    if (response?.ok) {
      this.#token.value = "";
      remember(KEY, "yes");
      this.#begin();
      return;
    }
    setText(this.#error, problemOf(response));
    this.#token.select();
  }

  #begin(): void {
    setHidden(byId("sign-in", HTMLElement), true);
    this.#listener.onSignedIn();
    byId("main", HTMLElement).focus();
  }

  async #signOut(): Promise<void> {
    const response = await fetch("/session", { method: "DELETE" }).catch(() => undefined);
    this.ask(response?.ok ? "Signed out." : "The server did not answer: the session there ends by itself.");
  }
}

function problemOf(response: Response | undefined): string {
  if (!response) return "The server does not answer.";
  return response.status === 401 ? "This is not the token." : `The server answered ${response.status}.`;
}
