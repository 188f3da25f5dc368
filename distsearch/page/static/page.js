// The page: asks its server how the searches stand, draws the panels in sight, and asks for changes.
"use strict";
(() => {
  const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
  const $ = (id) => document.getElementById(id);
  const state = {version: -1, searches: [], which: 0, tab: "Overview", panels: new Map(), sections: []};
  window.seen = {updates: []}; // how long each update took, in ms: for whoever measures

  async function call(path, options = {}) {
    const answer = await fetch(path, {...options, headers: {"X-Distsearch-Token": token, ...options.headers}});
    const body = await answer.json().catch(() => ({error: answer.statusText}));
    if (answer.status === 403) throw new Error(body.error);
    return body;
  }
  const ask = (path, query = {}) =>
    call(`${path}?${new URLSearchParams({search: state.which, ...query})}`);
  async function request(kind, what, words) {
    const body = JSON.stringify({search: state.which, kind, what});
    say("asking …");
    const answer = await call("/api/ask", {method: "POST", body, headers: {"Content-Type": "application/json"}})
      .catch((error) => ({error: error.message}));
    say(answer.error || answer.said || words, 8000);
    return !answer.error;
  }
  let quiet;
  function say(text, forMs = 0) {
    $("said").textContent = text;
    clearTimeout(quiet);
    if (forMs) quiet = setTimeout(() => { $("said").textContent = ""; }, forMs);
  }

  // What is shown is old: follow() says that the server does not answer, and asks anew once it does.
  function unanswered(error) {
    if (!(error instanceof TypeError)) throw error;
    state.isOld = true;
  }

  // Figures

  function decoded(columns) {
    const found = {};
    for (const [name, values] of Object.entries(columns)) {
      if (values.f4 === undefined) { found[name] = values; continue; }
      const signs = atob(values.f4), bytes = new Uint8Array(signs.length);
      for (let n = 0; n < signs.length; n++) bytes[n] = signs.charCodeAt(n); // (Uint8Array.from is 30 times as slow)
      found[name] = new Float32Array(bytes.buffer);
    }
    return found;
  }

  class PanelView {
    constructor(about) {
      this.about = about;
      this.shape = "";
      this.options = {};
      this.figure = element("div", {class: "figure", id: `figure-${about.name}`, role: "group",
        "aria-label": `${about.title}: ${Look.keys}`, onkeydown: (event) => Look.press(this.doc, event)});
      this.values = new Values(about.title, () => this.doc);
      this.note = element("p", {class: "quiet"}, about.about);
      this.controls = element("div", {class: "bar"});
      this.root = element("article", {class: about.wide ? "wide" : null, "aria-label": about.title},
        element("h3", {}, about.title), this.note, this.controls, this.figure, this.values.root);
    }

    // Fetch and show what is new; while that is under way, whoever asks again waits for it too.
    async refresh() {
      if (this.underWay) { this.again = true; return this.underWay; }
      const query = {name: this.about.name, known: this.shape, drawn: this.drawn ?? "", ...this.options};
      this.underWay = ask("/api/panel", query).then((answer) => this.show(answer));
      try {
        await this.underWay;
      } finally {
        this.underWay = null;
        if (this.again && !this.isLeft) { this.again = false; this.refresh().catch(unanswered); }
      }
    }

    async show(answer) {
      if (this.isLeft) return;
      if (answer.same) return;
      if (answer.error) { this.note.textContent = answer.error; return; }
      this.root.classList.toggle("empty", Boolean(answer.empty));
      this.note.textContent = answer.empty || answer.note || this.about.about;
      this.choose(answer.choices || []);
      this.drawn = answer.drawn;
      if (answer.columns && this.doc) {
        for (const [name, columns] of Object.entries(answer.columns)) {
          const source = this.doc.get_model_by_name(name);
          if (source) source.data = decoded(columns);
        }
        this.values.refresh();
        return;
      }
      this.clear();
      this.shape = answer.item || answer.empty ? answer.shape : "";
      if (!this.shape) this.drawn = "";
      if (!answer.item) return;
      this.draws = true;
      const views = await Bokeh.embed.embed_item(answer.item, this.figure);
      this.draws = false;
      const [view] = views.roots ?? [...views];
      this.doc = (view.model ?? view).document;
      if (this.isLeft) this.leave();
      else {
        Look.paint(this.doc);
        this.values.refresh();
      }
    }

    // Another view is opened. Bokeh draws under <body> alone: a figure that it is drawing waits there, unseen.
    leave() {
      this.isLeft = true;
      if (this.draws) { $("left").append(this.root); return; }
      this.clear();
      this.root.remove();
    }

    clear() {
      if (this.doc) {
        const at = Bokeh.documents.indexOf(this.doc);
        if (at >= 0) Bokeh.documents.splice(at, 1);
        this.doc.clear();
        this.doc = null;
      }
      this.figure.replaceChildren();
    }

    choose(names) {
      const several = state.searches[state.which]?.objectives ?? [];
      const key = JSON.stringify([names, several]);
      if (key === this.choices) return;
      this.choices = key;
      const selects = [];
      const select = (option, label, values) => {
        const made = element("select", {onchange: () => { this.options[option] = made.value; this.refresh().catch(unanswered); }},
          ...values.map((value) => element("option", {value, selected: this.options[option] === value}, value)));
        selects.push(element("label", {}, `${label} `, made));
        return made;
      };
      if (this.about.name === "contour" && names.length > 1) {
        select("x", "across", names);
        if (!this.options.y) select("y", "up", [...names.slice(1), names[0]]);
        else select("y", "up", names);
      }
      if (this.about.name === "best") {
        select("by", "over", ["trials", "seconds"]);
      }
      if (several.length > 1 && this.about.objective) select("objective", "objective", several);
      this.controls.replaceChildren(...selects);
    }
  }

  // Views

  function tabs() {
    const names = [...state.sections.map((one) => one.title), "Trials", "Steer"];
    if (state.searches.length > 1) names.push("Side by side");
    const list = document.querySelector("[role=tablist]");
    list.replaceChildren(...names.map((name) => element("button", {
      role: "tab", "aria-selected": name === state.tab, "aria-controls": "view",
      tabindex: name === state.tab ? 0 : -1, onclick: () => show(name)}, name)));
    list.onkeydown = (event) => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      const at = names.indexOf(state.tab);
      show(names[(at + step + names.length) % names.length]);
      list.querySelector("[aria-selected=true]").focus();
    };
  }

  const trials = new Trials(ask, (trial) => details(trial));
  function show(name) {
    for (const panel of state.panels.values()) panel.leave();
    state.panels = new Map();
    state.tab = name;
    tabs();
    const view = $("view");
    view.setAttribute("role", "tabpanel");
    view.setAttribute("aria-label", name);
    const section = state.sections.find((one) => one.title === name);
    if (section) {
      state.panels = new Map(section.panels.map((about) => [about.name, new PanelView(about)]));
      const panels = [...state.panels.values()].map((panel) => panel.root);
      const first = name === "Overview" ? [element("dl", {class: "summary", id: "summary"})] : [];
      view.replaceChildren(...first, element("div", {class: "panels"}, ...panels));
    } else if (name === "Trials") {
      view.replaceChildren(trials.root);
    } else if (name === "Steer") {
      view.replaceChildren(steer());
    } else {
      const about = {name: "best", title: "Best so far", about: "", search: "all", wide: true};
      const panel = new PanelView(about);
      panel.options.search = "all";
      state.panels = new Map([["best", panel]]);
      view.replaceChildren(panel.root, element("div", {class: "scrolls"}, element("table", {id: "compared"})));
    }
    refresh();
  }

  async function refresh() {
    const began = performance.now(), panels = state.panels;
    head();
    const work = [...state.panels.values()].map((panel) => panel.refresh());
    if (state.tab === "Trials") work.push(trials.refresh());
    try {
      await Promise.all(work);
    } catch (error) {
      unanswered(error);
      return;
    }
    if (panels !== state.panels) return; // another view was opened meanwhile
    state.isOld = false;
    await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
    window.seen.updates.push(performance.now() - began);
    window.seen.first ??= performance.now(); // since the page was asked for
    document.body.dataset.ready = state.version;
  }

  function head() {
    const search = state.searches[state.which];
    if (!search) return;
    document.title = `${search.name} · distsearch`;
    $("name").textContent = search.name;
    $("stands").textContent = search.reading || search.stands;
    $("trouble").textContent = search.error || "";
    const pairs = (search.summary || []).flatMap(([name, text]) =>
      [element("dt", {}, name), element("dd", {}, text)]);
    $("summary")?.replaceChildren(...pairs);
    const compared = $("compared");
    if (compared) {
      const rows = state.searches.filter((one) => one.compared).map((one) => one.compared);
      compared.replaceChildren(
        element("tr", {}, ...Object.keys(rows[0] || {}).map((name) => element("th", {scope: "col"}, name))),
        ...rows.map((row) => element("tr", {}, ...Object.values(row).map((text) => element("td", {}, text)))));
    }
    if (state.tab === "Steer") liveNodes();
  }

  // One trial

  async function details(trial) {
    const one = await ask("/api/trial", {trial});
    if (one.error) { say(one.error, 6000); return; }
    const pairs = (given) => element("dl", {class: "summary"}, ...Object.entries(given).flatMap(([name, text]) =>
      shown(text) ? [element("dt", {}, name), element("dd", {}, shown(text))] : []));
    const close = element("button", {class: "main", onclick: () => $("dialog").close()}, "Close");
    const act = (kind, words, look) => element("button", {class: look, disabled: !state.canAsk, onclick: async () => {
      if (await request(kind, {trial}, words)) $("dialog").close();
    }}, words);
    const buttons = one.is_open ? [
      act("stop_trial", "Stop this trial", "danger"),
      one.is_paused ? act("go_on", "Let it go on") : act("pause_trial", "Pause it")] : [];
    const again = element("button", {disabled: !state.canAsk, onclick: () => { $("dialog").close(); add(one.plain); }},
      "Try it changed …");
    const text = (title, words) => words ? element("div", {}, element("h3", {}, title), element("pre", {tabindex: 0}, words)) : null;
    $("dialog").replaceChildren(
      element("h2", {}, `Trial ${one.trial}: ${one.status}`),
      one.reason ? element("p", {}, one.reason) : "",
      pairs({...one.reached, attempt: one.attempt, host: one.hosts.join(", "), parents: one.parents.join(", ")}),
      element("h3", {}, "Configuration"), pairs(one.config),
      text("Traceback", one.traceback) ?? "", text("Output", one.output) ?? "",
      element("div", {class: "bar"}, close, ...buttons, again));
    $("dialog").showModal();
    close.focus();
  }

  // Steering

  async function add(config) {
    show("Steer");
    const field = $("config");
    field.value = JSON.stringify(config, null, 2);
    field.focus();
  }

  function steer() {
    const search = state.searches[state.which] || {};
    const off = !state.canAsk;
    const stop = element("button", {class: "danger", id: "stop", disabled: off, onclick: () => {
      const sure = element("button", {class: "danger", onclick: () => {
        $("dialog").close();
        request("stop_search", {}, "the search is asked to stop");
      }}, "Stop the search");
      const cancel = element("button", {onclick: () => $("dialog").close()}, "Cancel");
      $("dialog").replaceChildren(element("h2", {}, `Stop ${search.name}?`),
        element("p", {}, "Running trials are stopped; what they have reported stays."),
        element("div", {class: "bar"}, sure, cancel));
      $("dialog").showModal();
      cancel.focus();
    }}, "Stop the search …");
    const pause = element("button", {disabled: off, title: "Nothing more starts; trials that save checkpoints pause",
      onclick: () => request("pause_search", {}, "the search is asked to pause")}, "Pause the search");
    const goOn = element("button", {disabled: off,
      onclick: () => request("search_goes_on", {}, "the search is asked to go on")}, "Let it go on");
    const field = element("textarea", {id: "config", spellcheck: "false", "aria-label": "Configuration as JSON"});
    field.value = JSON.stringify(search.best_config || {}, null, 2);
    const adding = element("button", {class: "main", disabled: off, onclick: () => {
      let config;
      try { config = JSON.parse(field.value); } catch (error) { say(`This is no JSON: ${error.message}`, 8000); return; }
      request("add_config", {config}, "the trial is asked for");
    }}, "Add a trial with this configuration");
    const address = element("input", {id: "node", "aria-label": "Address of a node", placeholder: "user@host:port, or a file that names nodes: /home/ada/nodes.toml", class: "grow"});
    const node = (kind, words) => element("button", {disabled: off, onclick: () =>
      address.value.trim() ? request(kind, {node: address.value.trim()}, words) : address.focus()}, words);
    const why = off ? "No driver runs this search, so that there is nobody to ask." : "";
    return element("div", {}, element("p", {class: "quiet", id: "why"}, why),
      element("article", {}, element("h3", {}, "Search"), element("div", {class: "bar"}, pause, goOn, stop)),
      element("article", {}, element("h3", {}, "Another trial"), field, element("div", {class: "bar"}, adding)),
      element("article", {}, element("h3", {}, "Nodes"),
        element("div", {class: "bar"}, address, node("add_node", "Add this node"), node("drain_node", "Drain this node")),
        element("div", {class: "scrolls"}, element("table", {id: "nodes"})), element("p", {class: "quiet", id: "queue"})));
  }

  function liveNodes() {
    const search = state.searches[state.which] || {};
    const live = search.live;
    const key = JSON.stringify([live, state.canAsk]);
    if ($("nodes").dataset.shows === key) return;
    $("nodes").dataset.shows = key;
    const focused = $("nodes").contains(document.activeElement) && document.activeElement.ariaLabel;
    $("queue").textContent = live ? live.queue : "";
    const rows = (live?.nodes || []).map((one) => element("tr", {},
      ...[one.named, one.state, one.cpus, one.gpus, one.trials].map((text) => element("td", {}, shown(text))),
      element("td", {}, element("button", {"aria-label": `Drain ${one.named}`, disabled: !state.canAsk,
        onclick: () => request("drain_node", {node: one.named}, `${one.named} is asked to drain`)}, "Drain"))));
    const heads = ["node", "state", "CPUs in use", "GPUs in use", "trials", ""];
    $("nodes").replaceChildren(...(rows.length ? [element("tr", {}, ...heads.map((name) => element("th", {}, name))), ...rows] : []));
    if (focused) $("nodes").querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  // Following

  function take(answer) {
    const first = state.version < 0, before = state.searches[state.which]?.revision;
    const could = state.canAsk;
    Object.assign(state, {version: answer.version, searches: answer.searches, sections: answer.sections});
    state.canAsk = Boolean(state.searches[state.which]?.runs);
    if (state.searches.length > 1 && $("searches").options.length !== state.searches.length) {
      $("which").hidden = false;
      $("searches").replaceChildren(...state.searches.map((one, n) => element("option", {value: n}, one.name)));
    }
    const began = state.searches[state.which]?.revision;
    if (first) show(state.tab);
    else if (state.tab === "Steer" && could !== state.canAsk) show("Steer");
    else if (before !== began || state.isOld || state.tab === "Side by side") refresh();
    else head();
  }

  async function follow() {
    for (;;) {
      try {
        take(await call(`/api/state?after=${state.version}`));
        $("trouble").textContent = state.searches[state.which]?.error || "";
      } catch (error) {
        $("trouble").textContent = error instanceof TypeError
          ? "The page's server does not answer; it is tried again." : error.message;
        await new Promise((later) => setTimeout(later, 2000));
      }
    }
  }

  $("searches").addEventListener("change", (event) => {
    state.which = Number(event.target.value);
    trials.start = 0;
    state.canAsk = Boolean(state.searches[state.which]?.runs);
    show(state.tab);
  });
  function theme(dark) {
    Look.set(dark);
    $("theme").setAttribute("aria-pressed", dark);
    $("theme").textContent = dark ? "Light" : "Dark";
  }
  $("theme").addEventListener("click", () => theme(!Look.isDark()));
  prefers.addEventListener("change", () => theme(prefers.matches));
  theme(prefers.matches);
  follow();
})();
