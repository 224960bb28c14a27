// The theme a person chose into the colors of the page, before it is first painted.
"use strict";
(() => {
  const THEMES = ["system", "light", "dark"];
  const STORED = "variseq-theme";

  function stored() {
    try {
      return localStorage.getItem(STORED);
    } catch {
      return null; // storage can be forbidden; the theme then lasts as long as the page
    }
  }

  function store(theme) {
    try {
      localStorage.setItem(STORED, theme);
    } catch {
      // see above
    }
  }

  let theme = THEMES.includes(stored()) ? stored() : "system";
  document.documentElement.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      button.textContent = `Theme: ${theme}`;
      document.documentElement.dataset.theme = theme;
      document.dispatchEvent(new CustomEvent("themechange"));
    };
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      store(theme);
      show();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
    show();
  });
})();
