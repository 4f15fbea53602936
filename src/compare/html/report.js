"use strict";
// Shows and hides variants in all plots.
for (const box of document.querySelectorAll("[data-toggle]")) {
  box.closest(".toggles").hidden = false;
  box.addEventListener("change", () => {
    for (const part of document.querySelectorAll(`svg [data-variant="${box.dataset.toggle}"]`)) {
      part.style.opacity = box.checked ? "" : part.querySelector("text") ? "0.35" : "0";
    }
  });
}
// Moves a heat map through the steps of its run.
for (const data of document.querySelectorAll('figure script[type="application/json"]')) {
  const figure = data.closest("figure");
  const { steps, cells } = JSON.parse(data.textContent);
  const [label, input, output] = ["label", "input", "output"].map((name) => figure.querySelector(name));
  const draw = () => {
    const frame = Number(input.value);
    output.textContent = steps[frame];
    figure.querySelector(".step").textContent = `step ${steps[frame]}`;
    for (const cell of figure.querySelectorAll("[data-cell]")) {
      const value = cells[frame][Number(cell.dataset.cell)];
      if (!value) continue;
      const isText = cell.tagName === "text";
      cell.setAttribute("class", (isText ? "i" : "h") + value[0]);
      if (isText) cell.textContent = value[1];
    }
  };
  Object.assign(input, { min: 0, max: steps.length - 1, value: steps.length - 1 });
  input.addEventListener("input", draw);
  label.hidden = false;
  draw();
}
