/* A button that copies a field: shown only where the browser lets pages copy. The field can be selected by hand, too. */
(() => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    const field = document.getElementById(button.dataset.copy);
    const label = button.querySelector("[data-copy-label]");
    if (!field || !navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(field.value);
        label.textContent = "Copied";
      } catch {
        field.select();
        label.textContent = "Press Ctrl+C";
      }
    });
  }
  for (const field of document.querySelectorAll("input[readonly]")) field.addEventListener("focus", () => field.select());
})();
