"use strict";
// One record at a time. Texts are only ever put in as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const start = JSON.parse($("data").textContent);
  let now = null; // the record on the page
  let level = 0; // how much of its text is seen: 0 nothing, 1 without the words that fired, 2 all
  let since = 0; // when it came
  let busy = false;
  let worked = Date.now(); // since when without a break

  const make = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const words = (name) => name.replaceAll("_", " ");
  const say = (text, wrong) => {
    $("status").textContent = text;
    $("status").className = wrong ? "wrong" : "";
  };

  const put = (where, pieces) => {
    where.replaceChildren(
      ...pieces.map(([text, what]) => {
        if (!what) return document.createTextNode(text);
        const made = make(what === "hidden character" ? "span" : "mark", "", text);
        if (what === "hidden character") made.className = "unseen";
        made.title = what;
        return made;
      }),
    );
  };
  const shape = (where, lengths) => {
    where.replaceChildren(
      ...lengths.map((length) => {
        const made = make("span", "word");
        made.style.width = `${Math.min(length, 14) * 0.5}em`;
        return made;
      }),
    );
  };

  const show = (told) => {
    now = told.row === undefined ? null : told;
    level = 0;
    since = performance.now();
    const { done, records, queue } = told.progress;
    $("bar").max = Math.max(records, 1);
    $("bar").value = done;
    const of = records < queue ? `the first ${records.toLocaleString("en")}` : records.toLocaleString("en");
    $("count").textContent = `${done.toLocaleString("en")} of ${of} done`;
    choosing(false);
    for (const id of ["record", "side"]) $(id).hidden = !now;
    $("empty").hidden = Boolean(now);
    for (const id of ["clear", "flag", "escalate", "skip", "note-button"]) $(id).disabled = !now;
    if (now) record();
    else nothing(told.why);
    window.scrollTo(0, 0);
  };

  const record = () => {
    $("heading").textContent = now.record_id ?? "record without an id";
    $("about").textContent = [
      now.rank && `rank ${now.rank.toLocaleString("en")}`,
      now.role && `by ${now.role}`,
      now.time,
    ].filter(Boolean).join(" \u00b7 ");
    $("severity").hidden = now.blind;
    if (!now.blind) {
      $("severity").textContent = now.category ? `${words(now.category)} \u00b7 severity ${now.severity}` : "not scored";
      $("severity").className = now.severity >= 4 ? "chip severe" : "chip";
    }
    const size = now.characters === null ? "" : `${now.characters.toLocaleString("en")} characters`;
    $("length").textContent = size && `${size}, hidden`; // the shape of a text is nothing to hear
    $("context-part").hidden = !now.context;
    put($("context"), [["hidden with the text", ""]]);
    $("text").setAttribute("aria-label", "");
    if (now.characters === null) put($("text"), [["(no text)", ""]]);
    else shape($("text"), now.shape);
    $("fired-part").hidden = true;
    $("reveal").hidden = now.characters === null;
    $("reveal").firstChild.textContent = "Reveal ";
    $("alike-part").hidden = !now.alike;
    $("alike").textContent = `and ${now.alike.toLocaleString("en")} alike: your answer is for all of them`;
    $("alone").checked = false;
    $("others").replaceChildren();
    $("others").parentElement.open = false;
    $("note").value = "";
    $("note-part").hidden = true;
    $("earlier").hidden = !now.earlier.length;
    $("earlier").replaceChildren(
      ...now.earlier.map((one, i) => {
        const said = one.answer === "flag" ? `flag: ${words(one.category ?? "no category")}` : one.answer;
        return make("p", "", `Reviewer ${i + 1} said ${said}${one.note ? `; note: ${one.note}` : ""}`);
      }),
    );
    policy();
    $("heading").focus({ preventScroll: true });
  };

  const policy = () => {
    const category = start.categories.find((one) => one.name === now.category);
    $("machine").hidden = now.blind;
    if (now.blind) {
      $("definition").textContent = "What the models think of this record is not shown. The categories are under Flag.";
      return;
    }
    const means = now.definition ?? category?.definition;
    $("definition").replaceChildren();
    if (now.category) $("definition").append(make("strong", "", `${words(now.category)}: `));
    $("definition").append(means ?? "It is here for no one category.");
    // The reason names the stage but for a duplicate, which has the reason of the other.
    const copy = now.stage === "duplicate" ? " (the same text as an earlier record)" : "";
    $("reason").textContent = now.reason + copy;
    const known = Object.entries(now.p).filter(([, p]) => p !== null);
    known.sort(([, a], [, b]) => b - a);
    $("bars").replaceChildren(
      ...known.flatMap(([name, p]) => {
        const own = name === now.category ? "own" : "";
        const bar = make("dd", "rail");
        const inner = make("div");
        inner.style.width = `${100 * p}%`;
        bar.append(inner);
        return [make("dt", own, words(name)), bar, make("dd", `number ${own}`, p.toFixed(2))];
      }),
    );
    if (!known.length) $("bars").append(make("dt", "", "not scored"));
  };

  const nothing = (why) => {
    const told = {
      done: ["Nothing is waiting", "Every record of this queue has its answers, or is not for you."],
      claimed: ["Others have what is left", "It comes back if they leave it. Load the page again later."],
      skipped: ["Only what you skipped is left", "Leave it to others, or start the page again to see it."],
      capped: [
        "Enough for this session",
        `What is left is severe, and you have seen as much of it as one session should hold. After a pause of ${start.pauseMinutes} minutes it is counted anew.`,
      ],
    }[why];
    $("empty-heading").textContent = told[0];
    $("empty-text").textContent = told[1];
    $("empty-heading").focus();
  };

  const act = async (work, said) => {
    if (busy) return;
    busy = true;
    try {
      const told = await work();
      if (told) show(told);
      say(said ?? "");
    } catch (error) {
      say(error.message, true);
    } finally {
      busy = false;
    }
    remind();
    if (now?.level && now.characters !== null && !now.asked) {
      now.asked = true; // once: masked less by choice of who started the page
      reveal(now.level);
    }
  };

  const reveal = (to) => {
    if (!now || now.characters === null) return;
    act(async () => {
      const told = await desk.reveal(now.row, to ?? level + 1);
      level = told.revealed;
      $("length").textContent = $("length").textContent.replace(", hidden", "");
      put($("text"), told.text ?? [["(no text)", ""]]);
      if (told.context) put($("context"), told.context);
      const fired = new Map();
      for (const [, what] of told.text ?? []) if (what) fired.set(what, (fired.get(what) ?? 0) + 1);
      $("fired-part").hidden = !fired.size || now.blind;
      $("fired").textContent = [...fired].map(([what, n]) => (n > 1 ? `${words(what)} (${n})` : words(what))).join(", ");
      $("others").replaceChildren(
        ...told.alike.map((pieces) => {
          const item = make("li");
          const text = make("div", "text");
          text.dir = "auto";
          put(text, pieces ?? []);
          item.append(text);
          return item;
        }),
      );
      const dots = [...fired].length && level < 2 && $("text").textContent.includes("\u2022");
      $("reveal").hidden = !dots;
      $("reveal").firstChild.textContent = "Show the words ";
      $("text").focus({ preventScroll: true }); // so that it is read out
    });
  };

  const answer = (what, category) => {
    if (!now) return;
    const given = {
      row: now.row, answer: what, category: category ?? null, note: $("note").value || null,
      seconds: Math.round(performance.now() - since) / 1000, alone: $("alone").checked,
    };
    const said = category ? `flagged: ${words(category)}` : { clear: "cleared", escalate: "escalated" }[what];
    act(() => desk.answer(given), `${said}; u takes it back`);
  };

  const choosing = (open) => {
    $("categories").hidden = !open;
    $("flag").setAttribute("aria-expanded", String(open));
  };
  start.categories.forEach((category, i) => {
    const made = make("button", "", words(category.name) + " ");
    made.type = "button";
    made.title = category.definition;
    made.append(make("kbd", "", String(i + 1)));
    made.addEventListener("click", () => answer("flag", category.name));
    $("categories").append(made);
  });

  const note = () => {
    if (!now) return;
    $("note-part").hidden = false;
    $("note").focus();
  };

  const remind = () => {
    const minutes = (Date.now() - worked) / 60000;
    if (!start.breakMinutes || minutes < start.breakMinutes || !$("break").hidden) return;
    const close = make("button", "", "I had one");
    close.type = "button";
    close.addEventListener("click", () => {
      worked = Date.now();
      $("break").hidden = true;
      $(now ? "heading" : "empty-heading").focus();
    });
    $("break").replaceChildren(`You have been reading for ${Math.round(minutes)} minutes. Take five away from the screen.`, close);
    $("break").hidden = false;
  };

  const actions = {
    c: () => answer("clear"),
    f: () => now && choosing($("categories").hidden),
    e: () => answer("escalate"),
    s: () => now && act(() => desk.skip(now.row), "skipped"),
    u: () => act(() => desk.undo(), "taken back"),
    n: note,
    r: () => level < 2 && reveal(),
    "?": () => $("help").showModal(),
  };
  const buttons = { clear: "c", flag: "f", escalate: "e", skip: "s", undo: "u", "note-button": "n", reveal: "r", "help-button": "?" };
  for (const [id, key] of Object.entries(buttons)) $(id).addEventListener("click", actions[key]);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("help").open) return;
    if (event.target === $("note")) {
      if (event.key === "Escape") $("heading").focus();
      return;
    }
    if (event.key === "Escape") choosing(false);
    if (!$("keys").checked) return;
    const chosen = start.categories[Number(event.key) - 1];
    if (!$("categories").hidden && chosen) answer("flag", chosen.name);
    else if (Object.hasOwn(actions, event.key.toLowerCase())) actions[event.key.toLowerCase()]();
    else return;
    event.preventDefault();
  });

  $("who").textContent = desk.reviewer?.() ?? start.reviewer;
  if (desk.save) {
    $("save").hidden = false;
    $("alone-part").hidden = true; // its texts came as groups
    $("save").addEventListener("click", () => say(desk.save()));
  }
  act(() => desk.next());
})();
