// Copies what a reviewer types next. Where the browser refuses a file from the disk its clipboard, the text is
// selected, so that one key does it.

(() => {
  const said = document.querySelector(".copied");

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
      said.textContent = done ? "Copied." : "Selected: press Ctrl+C or ⌘C.";
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1600);
    });
  }
})();
