// Copies the command and the provenance. Where the browser denies a local file access to the clipboard, the text is
// selected instead.

(() => {
  const status = document.querySelector(".copied");

  function select(place) {
    const range = document.createRange();
    range.selectNodeContents(place);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  }

  async function copied(place) {
    try {
      await navigator.clipboard.writeText(place.textContent);
      return true;
    } catch {
      place.classList.remove("hidden");
      select(place);
      return document.execCommand("copy");
    }
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copied(document.getElementById(button.dataset.copy));
      status.textContent = done ? "Copied." : "Selected: press Ctrl+C or ⌘C.";
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1600);
    });
  }
})();
