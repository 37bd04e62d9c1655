"use strict";
// Sets up the parts of the page once the arrays are unpacked.
(async () => {
  const copy = async (button) => {
    const text = button.previousElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "Selected";
    }
  };
  document.addEventListener("click", (event) => {
    const photo = event.target.closest("[data-photo]");
    if (photo && report.ready) report.openPhoto(Number(photo.dataset.photo));
    if (event.target.matches(".copy")) copy(event.target);
  });
  await report.unpack();
  report.ready = true;
  report.setUpDialogs();
  report.setUpPhotos();
  report.observeThumbnails();
  if (report.data.pairs.tried) report.setUpMatrix();
  if (report.data.pairs.verified) report.setUpGraph();
  report.setUpModel();
  document.documentElement.dataset.ready = "yes";
})();
