// What stands below a figure, for the keyboard and to be read aloud: a table of what pointing at it shows, and a
// button that saves it as a picture.
"use strict";
class Values {
  static MOST = 200; // rows of a table

  // `doc`: a function that gives the document of the figure, or null while there is none.
  constructor(title, doc) {
    this.doc = doc;
    this.inside = element("div", {class: "scrolls low", tabindex: 0, role: "region", "aria-label": `Values: ${title}`});
    this.table = element("details", {ontoggle: () => this.refresh()},
      element("summary", {}, "Values"), this.inside);
    const save = element("button", {"aria-label": `Save as a picture: ${title}`, onclick: () => this.save(title)}, "Save");
    this.root = element("div", {class: "values"}, this.table, save);
  }

  // Show what the figure shows now, if anybody looks.
  refresh() {
    if (this.table.open) this.inside.replaceChildren(...(this.doc() ? Values.tables(this.doc()) : []));
  }

  // Save the picture of all figures of the document as a file.
  async save(title) {
    const doc = this.doc();
    if (!doc) return;
    const picture = await Bokeh.index.find_one(doc.roots()[0]).export("png").to_blob();
    const address = URL.createObjectURL(picture);
    element("a", {href: address, download: `${title}.png`}).click();
    URL.revokeObjectURL(address);
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
