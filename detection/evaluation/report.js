"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  all(".controls, .runs").forEach((element) => { element.hidden = false; });

  // Tables: a click sorts, greatest number first; n/a stays at the end.
  for (const table of all("table.sortable")) {
    const headings = all("thead th", table);
    headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
      const number = heading.classList.contains("number");
      const first = number ? "descending" : "ascending";
      const second = number ? "ascending" : "descending";
      const order = heading.getAttribute("aria-sort") === first ? second : first;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        const [one, other] = [a.cells[column], b.cells[column]];
        if (!number) return sign * one.textContent.localeCompare(other.textContent);
        const [x, y] = [Number(one.dataset.value), Number(other.dataset.value)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      };
      const position = (row) => Number(row.dataset.position);
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => compare(a, b) || position(a) - position(b)));
    }));
  }

  for (const run of all(".run")) {
    // The text filter of the classes.
    const filter = run.querySelector(".filter");
    const rows = all(".classes tbody tr", run);
    const show = () => {
      const text = filter.value.trim().toLowerCase();
      rows.forEach((row) => { row.hidden = !row.cells[0].textContent.toLowerCase().includes(text); });
      const shown = rows.filter((row) => !row.hidden).length;
      run.querySelector(".shown").textContent = `${shown} of ${rows.length} classes`;
    };
    filter.addEventListener("input", show);
    show();

    // The class whose curves stand out, chosen from the list or by its row.
    const curves = run.querySelector(".curves");
    const choice = curves.querySelector(".choose");
    const choose = (label) => {
      choice.value = label;
      curves.classList.toggle("choosing", label !== "0");
      all("[data-label]", curves).forEach((line) => {
        const chosen = line.dataset.label === label;
        line.classList.toggle("chosen", chosen);
        if (chosen) line.parentNode.append(line);
      });
      rows.forEach((row) => row.classList.toggle("chosen", row.dataset.label === label));
      const name = curves.querySelector(".chosen-name");
      name.hidden = label === "0";
      name.querySelector("span").textContent = choice.selectedOptions[0].textContent;
    };
    choice.addEventListener("change", () => choose(choice.value));
    rows.forEach((row) => row.addEventListener("click", () => {
      choose(choice.value === row.dataset.label ? "0" : row.dataset.label);
    }));
    all(".switch button", curves).forEach((button, _, buttons) => button.addEventListener("click", () => {
      curves.dataset.iou = button.dataset.iou;
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    }));

    // What a cell of the confusion matrix says, also where nothing can hover.
    const say = (event) => {
      const cell = event.target.closest("td[title]");
      if (cell) run.querySelector("output.cell").textContent = cell.title;
    };
    ["click", "mouseover"].forEach((type) => run.querySelector(".matrix").addEventListener(type, say));
  }

  // One run at a time.
  const switches = all(".runs button");
  const visit = (chosen) => {
    switches.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.run === chosen)));
    all(".run").forEach((run) => { run.hidden = run.id !== `run-${chosen}`; });
  };
  switches.forEach((button) => button.addEventListener("click", () => visit(button.dataset.run)));
  if (switches.length) visit("0");

  // Pictures, enlarged.
  const viewer = document.querySelector(".viewer");
  let pictures = [];
  let place = 0;
  const turn = (step) => {
    place = (place + step + pictures.length) % pictures.length;
    const figure = pictures[place];
    const copy = document.createElement("div");
    const source = figure.querySelector(".zoom");
    copy.className = "zoom";
    copy.style.aspectRatio = source.dataset.ratio;
    copy.append(...[...source.children].map((child) => child.cloneNode(true)));
    const [width, height] = source.dataset.ratio.split("/").map(Number);
    copy.style.width = `min(100%, ${(78 * width) / height}vh)`;
    viewer.querySelector(".stage").replaceChildren(copy);
    viewer.querySelector(".turn p").textContent = figure.querySelector("figcaption").innerText;
  };
  all(".picture .zoom").forEach((button) => button.addEventListener("click", () => {
    pictures = all(".picture", button.closest(".run"));
    place = pictures.indexOf(button.closest(".picture"));
    turn(0);
    viewer.showModal();
  }));
  all("[data-step]", viewer).forEach((button) => {
    button.addEventListener("click", () => turn(Number(button.dataset.step)));
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) turn(step);
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
})();
