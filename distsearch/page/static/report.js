// The report: its figures are drawn as they come into sight, its tables sort and filter.
"use strict";
(() => {
  const items = JSON.parse(document.getElementById("figures").textContent);
  document.documentElement.classList.toggle("dark", prefers.matches);
  prefers.addEventListener("change", () => Look.set(prefers.matches));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      Bokeh.embed.embed_item(items[entry.target.id], entry.target).then((views) => {
        const [view] = views.roots ?? [...views];
        const doc = (view.model ?? view).document;
        Look.paint(doc);
        const title = entry.target.closest("article").querySelector("h3").textContent;
        entry.target.setAttribute("role", "group");
        entry.target.ariaLabel = `${title}: ${Look.keys}`;
        entry.target.after(new Values(title, () => doc).root);
        entry.target.addEventListener("keydown", (event) => Look.press(doc, event));
      });
    }
  }, {rootMargin: "600px"});
  for (const name of Object.keys(items)) seen.observe(document.getElementById(name));

  const cell = (row, column) => row.cells[column].textContent;
  for (const table of document.querySelectorAll("table.sorts")) {
    const body = table.tBodies[0];
    table.tHead.querySelectorAll("button").forEach((button, column) => {
      button.addEventListener("click", () => {
        const up = button.parentElement.getAttribute("aria-sort") !== "ascending";
        for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
        button.parentElement.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [cell(a, column), cell(b, column)];
          if (!x || !y) return !x - !y;
          const numbers = Number(x) - Number(y);
          const order = Number.isNaN(numbers) ? x.localeCompare(y) : numbers;
          return up ? order : -order;
        });
        body.append(...rows);
      });
    });
    const filter = table.closest("section").querySelector("input.filter");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(words);
    });
  }
})();
