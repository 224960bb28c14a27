// A server that asks for a key into a dialog that asks a person.

import { byId, setText } from "./dom.js";

/** Promises what was typed, or null where it was called off. */
export function askForKey(message) {
  const dialog = byId("key-dialog");
  const input = byId("key-input");
  setText(byId("key-message"), message);
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    const form = byId("key-form");
    form.onsubmit = (press) => {
      press.preventDefault(); // nothing on this page is ever sent by a form
      dialog.close("given");
    };
    byId("key-cancel").onclick = () => dialog.close("");
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "given" && input.value.trim() ? input.value.trim() : null);
      input.value = "";
    }, { once: true });
  });
}
