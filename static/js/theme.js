/* Light or dark, before the first paint: the system's wish, unless somebody chose here otherwise. */
(() => {
  const KEY = "briefly-theme";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const system = () => (dark.matches ? "dark" : "light");

  /* Storage may be forbidden; then the choice lasts as long as the page. */
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {}
  const theme = () => (chosen === "light" || chosen === "dark" ? chosen : system());

  function show() {
    const now = theme();
    document.documentElement.dataset.bsTheme = now;
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      const words = `Switch to the ${now === "dark" ? "light" : "dark"} theme`;
      button.hidden = false;
      button.title = words;
      button.setAttribute("aria-label", words);
    }
  }

  function toggle() {
    const wanted = theme() === "dark" ? "light" : "dark";
    /* Back to what the system says: follow it again from here on. */
    chosen = wanted === system() ? null : wanted;
    try {
      if (chosen) localStorage.setItem(KEY, chosen);
      else localStorage.removeItem(KEY);
    } catch {}
    show();
  }

  show();
  dark.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", show);
  document.addEventListener("htmx:afterSettle", show);
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-theme-switch]")) toggle();
  });
})();
