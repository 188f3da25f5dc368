// What pointing at a figure shows, as a table below it: for the keyboard, and to be read aloud.
"use strict";
class Values {
  static MOST = 200; // rows of a table

  // `doc`: a function that gives the document of the figure, or null while there is none.
  constructor(title, doc) {
    this.doc = doc;
    this.inside = element("div", {class: "scrolls low", tabindex: 0, role: "region", "aria-label": `Values: ${title}`});
    this.root = element("details", {class: "values", ontoggle: () => this.refresh()},
      element("summary", {}, "Values"), this.inside);
  }

  // Show what the figure shows now, if anybody looks.
  refresh() {
    if (this.root.open) this.inside.replaceChildren(...(this.doc() ? Values.tables(this.doc()) : []));
  }

  // A table for each set of names that hovers of the figure show, the foremost lines and points first.
  static tables(doc) {
    const found = new Map(); // names, as JSON: rows, by their text, so that each is there once
    for (const tool of doc._all_models.values()) {
      if (tool.type !== "HoverTool") continue;
      const heads = JSON.stringify(tool.tooltips.map(([name]) => name));
      const rows = found.get(heads) ?? found.set(heads, new Map()).get(heads);
      for (const renderer of tool.renderers.toReversed()) {
        const some = Values.rows(tool.tooltips.map(([, text]) => text), renderer.data_source);
        if (tool.tags.includes("best last")) some.reverse();
        for (const row of some) rows.set(row.join("\n"), row);
      }
    }
    return [...found].flatMap(([heads, rows]) => {
      const some = [...rows.values()].slice(0, Values.MOST);
      const left = rows.size > some.length ? `the foremost ${some.length} of ${rows.size} rows` : "";
      return [element("p", {class: "quiet"}, left), element("table", {},
        element("thead", {}, element("tr", {}, ...JSON.parse(heads).map((name) => element("th", {scope: "col"}, name)))),
        element("tbody", {}, ...some.map((row) => element("tr", {}, ...row.map((text) => element("td", {}, text))))))];
    });
  }

  // What templates as "@x{0.[0]} s" say of each row of a source; gaps between lines are no rows.
  static rows(templates, source) {
    const columns = templates.map((text) => source.get_column((text.match(/@(\w+)/) ?? [])[1]));
    const count = Math.max(...columns.map((column) => column?.length ?? 0));
    const rows = [];
    for (let n = 0; n < count; n++) {
      if (columns.some((column) => Number.isNaN(column?.[n]))) continue;
      rows.push(templates.map((text, at) => (
        columns[at] ? text.replace(/@\w+({[^}]*})?/, () => shown(columns[at][n])) : text)));
    }
    return rows;
  }
}
