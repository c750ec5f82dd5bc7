"use strict";
// One look of the server at a time: the page says how far it has come, and gets what is new since then.

const SHOWN = 10; // seconds of a chart
const GAP = 0.5; // seconds without a frame, which a line does not cross
const LEFT = 30; // pixels beside a chart, for its scale
const COLOURS = 10;
const DASHES = [[], [7, 3], [2, 3]]; // neighbours differ in more than colour
const token = new URLSearchParams(location.search).get("token");
const byId = (id) => document.getElementById(id);
const query = token ? `?token=${encodeURIComponent(token)}` : "";
const streams = new Map(); // name -> {card, rows, number, ...}
let channels = [];
let recording = null;

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/look${query}`);
  let opened = false;
  socket.onopen = () => {
    opened = true;
    trouble("");
  };
  socket.onmessage = (message) => {
    take(JSON.parse(message.data));
    const since = Object.fromEntries([...streams].map(([name, stream]) => [name, stream.number]));
    requestAnimationFrame(() => {
      streams.forEach(draw);
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ since }));
    });
  };
  socket.onclose = async (event) => {
    say("not connected");
    byId("record").disabled = true;
    if (opened) trouble(`the connection was lost at ${new Date().toLocaleTimeString()}${event.reason && `: ${event.reason}`}; trying again …`);
    else trouble(await refusal());
    setTimeout(connect, 1000);
  };
}

// Why there is no connection: a browser does not say, a plain request does.
async function refusal() {
  try {
    const answer = await fetch(`look${query}`);
    if (answer.status === 401) {
      return `${token ? "This token is not the right one" : "This page needs a token"}: open the address that the ` +
        "command printed, with ?token=… at its end.";
    }
  } catch { /* it does not answer at all */ }
  return "the server does not answer; trying again …";
}

function say(text) {
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

function take(seen) {
  channels = seen.channels;
  recording = seen.recording;
  byId("record").disabled = false;
  byId("record").setAttribute("aria-pressed", String(recording !== null));
  byId("record").textContent = recording === null ? "Record" : "Stop recording";
  const names = Object.keys(seen.streams);
  byId("empty").hidden = names.length > 0;
  say([
    names.length === 1 ? "1 stream" : `${names.length} streams`,
    recording === null ? "" : `recording ${recording}`,
    seen.refused ? `${seen.refused} messages refused, the last: ${seen.why}` : "",
  ].filter(Boolean).join(" · "));
  for (const [name, { card }] of streams) {
    if (names.includes(name)) continue;
    card.remove(); // its place was given to another
    streams.delete(name);
  }
  for (const name of names) {
    if (!streams.has(name)) streams.set(name, made(name, seen));
    update(streams.get(name), seen.streams[name]);
  }
}

function made(name, seen) {
  const card = byId("stream").content.cloneNode(true).querySelector("article");
  card.setAttribute("aria-label", name);
  card.querySelector("h2").textContent = card.querySelector("h2").title = name;
  const select = card.querySelector("select");
  select.append(...seen.models.map((model) => new Option(model, model)));
  select.addEventListener("change", () => post("model", { stream: name, model: select.value }));
  byId("streams").append(card);
  return { card, rows: [], number: 0, charts: [], labels: null };
}

function update(stream, seen) {
  const { card } = stream;
  const restarted = seen.number < stream.number;
  stream.number = seen.number;
  if (restarted || stream.labels === null || String(stream.labels) !== String(seen.labels)) {
    stream.rows = [];
    stream.labels = seen.labels;
    stream.charts = figures(card.querySelector(".charts"), seen.labels);
  }
  const last = seen.frames.length ? seen.frames[seen.frames.length - 1][0] : 0;
  if (seen.frames.length) stream.rows = [...stream.rows, ...seen.frames].filter((row) => row[0] >= last - SHOWN);
  stream.seen = seen;

  const select = card.querySelector("select");
  if (document.activeElement !== select) select.value = seen.model;
  text(card.querySelector(".answer strong"), seen.answer.label ?? "–");
  const probability = seen.answer.probability ?? 0;
  text(card.querySelector(".answer span"), `${Math.round(100 * probability)} %`);
  card.querySelector(".bar i").style.width = `${100 * probability}%`;
  const missing = card.querySelector(".missing");
  missing.hidden = !seen.missing;
  text(missing, seen.missing && `No answer is possible: the stream lacks ${seen.missing}. Switch it on where it comes ` +
    "from, or use a model that was trained without it.");
  times(card.querySelector(".step"), seen.step_us);
  times(card.querySelector(".total"), seen.total_us);
  changes(card.querySelector(".changes"), seen.changes);
  facts(card.querySelector(".facts"), seen);
}

function text(element, wanted) {
  if (element.textContent !== wanted) element.textContent = wanted;
}

function times(row, quantiles) {
  const shown = (us) => (us < 1000 ? `${us.toFixed(0)} µs` : `${(us / 1000).toFixed(1)} ms`);
  const cells = row.querySelectorAll("td");
  text(cells[0], quantiles ? shown(quantiles.p50) : "–");
  text(cells[1], quantiles ? shown(quantiles.p99) : "–");
}

function changes(list, all) {
  const newest = all.length ? all[all.length - 1].number : 0;
  if (list.dataset.newest === String(newest)) return;
  list.dataset.newest = newest;
  list.replaceChildren(...all.slice(-8).reverse().map((change) => {
    const item = document.createElement("li");
    const time = document.createElement("span");
    time.textContent = `${change.time.toFixed(1)} s`;
    item.append(change.label, time);
    return item;
  }));
}

function facts(list, seen) {
  const { counts, gaps } = seen;
  const rates = Object.entries(seen.rates).map(([name, hz]) => `${name} ${hz.toFixed(0)} Hz`).join(", ");
  const lost = [[counts.late, "late"], [counts.doubled + counts.messages_doubled, "doubled"], [counts.impossible, "impossible"]];
  const last = gaps.length ? `, the last: ${gaps[gaps.length - 1].why}` : "";
  const entries = [
    ["engine", seen.engine],
    ["comes at", rates || "–"],
    ["frames wait", `${Math.round(1000 * seen.delay)} ms`],
    ["decision rule", [seen.rule, seen.follows].filter(Boolean).join("; ")],
    ["frames", `${counts.frames.toLocaleString("en")}, ${counts.bridged} bridged`],
    ["gaps", `${counts.gaps}${last}`],
    ["left out", lost.filter(([n]) => n).map(([n, what]) => `${n} ${what}`).join(", ") || "nothing"],
  ];
  if (list.childElementCount === 0) {
    for (const [name] of entries) list.append(element("dt", name), element("dd", ""));
  }
  list.querySelectorAll("dd").forEach((cell, i) => text(cell, entries[i][1]));
}

function element(kind, content) {
  const made = document.createElement(kind);
  made.textContent = content;
  return made;
}

// Charts: one for the channels of each unit, one for the probabilities, and a band of the answers.
function figures(place, labels) {
  const units = [...new Set(channels.map((channel) => channel.unit))];
  const groups = units.map((unit) => {
    const columns = channels.flatMap((channel, i) => (channel.unit === unit ? [i] : []));
    return { title: unit, names: columns.map((i) => channels[i].name), columns: columns.map((i) => 1 + i), range: null };
  });
  const first = 1 + channels.length;
  groups.push({ title: "probability", names: labels, columns: labels.map((_, i) => first + i), range: [0, 1] });
  groups.push({ title: "answer", names: [], columns: [first + labels.length + 1], labels });
  place.replaceChildren();
  return groups.map((group) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.append(element("b", group.title));
    group.names.forEach((name, i) => {
      const entry = element("span", name);
      const mark = document.createElement("i");
      mark.className = `dash${i % DASHES.length}`;
      mark.style.borderTopColor = `var(--c${i % COLOURS})`;
      entry.prepend(mark);
      caption.append(entry);
    });
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${group.title} ${group.names.join(", ")} over the last ${SHOWN} seconds`);
    if (group.labels) canvas.className = "band";
    figure.append(caption, canvas);
    place.append(figure);
    return { ...group, canvas };
  });
}

function draw(stream) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  for (const chart of stream.charts) {
    const pen = cleared(chart.canvas);
    if (stream.rows.length) (chart.labels ? band : plot)(pen, chart, stream.rows, colour);
  }
}

// A canvas's pen, at the size and resolution at which it is seen, with nothing drawn.
function cleared(canvas) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return pen;
}

// Where a time lies across a chart, whose right end is the last row's.
function across(canvas, rows) {
  const end = rows[rows.length - 1][0];
  return (time) => LEFT + ((time - end + SHOWN) / SHOWN) * (canvas.clientWidth - LEFT);
}

// The answers as stretches of colour, each with its label where there is room for it.
function band(pen, { canvas, columns, labels }, rows, colour) {
  const x = across(canvas, rows);
  const height = canvas.clientHeight;
  const label = (row) => row[columns[0]];
  const goesOn = (i) => label(rows[i]) === label(rows[i - 1]) && rows[i][0] - rows[i - 1][0] <= GAP;
  for (let begin = 0, end = 1; begin < rows.length; begin = end, end += 1) {
    while (end < rows.length && goesOn(end)) end += 1;
    const isNext = end < rows.length && rows[end][0] - rows[end - 1][0] <= GAP;
    const [left, right] = [x(rows[begin][0]), x(rows[isNext ? end : end - 1][0])];
    const number = label(rows[begin]);
    const fill = colour(number < 0 ? "--line" : `--c${number % COLOURS}`);
    pen.fillStyle = fill;
    pen.fillRect(left, 2, Math.max(1, right - left - 1), height - 4);
    const said = number < 0 ? "unknown" : labels[number];
    if (pen.measureText(said).width + 10 > right - left) continue;
    pen.fillStyle = isBright(fill) ? "#000" : "#fff";
    pen.fillText(said, left + 5, height / 2 + 4);
  }
}

function isBright(colour) {
  const [red, green, blue] = [1, 3, 5].map((i) => (parseInt(colour.slice(i, i + 2), 16) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18; // where black reads better than white
}

function plot(pen, { canvas, columns, range }, rows, colour) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const [low, high] = range ?? limits(rows, columns);
  const x = across(canvas, rows);
  const y = (value) => height - 4 - ((value - low) / (high - low)) * (height - 12);
  pen.fillStyle = colour("--soft");
  pen.strokeStyle = colour("--line");
  pen.lineWidth = 1;
  for (const tick of [low, (low + high) / 2, high]) {
    pen.beginPath();
    pen.moveTo(LEFT, y(tick));
    pen.lineTo(width, y(tick));
    pen.stroke();
    pen.fillText(Number(tick.toPrecision(2)), 0, y(tick) + 4);
  }
  pen.lineWidth = 1.5;
  columns.forEach((column, i) => {
    pen.strokeStyle = colour(`--c${i % COLOURS}`);
    pen.setLineDash(DASHES[i % DASHES.length]);
    pen.beginPath();
    let before = -Infinity;
    for (const row of rows) {
      if (row[0] - before > GAP) pen.moveTo(x(row[0]), y(row[column])); // behind a gap the line begins anew
      else pen.lineTo(x(row[0]), y(row[column]));
      before = row[0];
    }
    pen.stroke();
  });
  pen.setLineDash([]);
}

function limits(rows, columns) {
  let low = Infinity;
  let high = -Infinity;
  for (const row of rows) {
    for (const column of columns) {
      low = Math.min(low, row[column]);
      high = Math.max(high, row[column]);
    }
  }
  const step = 10 ** Math.floor(Math.log10(Math.max(high - low, 0.2))) / 2;
  return [Math.floor(low / step) * step, Math.ceil(high / step) * step];
}

async function post(path, body) {
  try {
    const answer = await fetch(`${path}${query}`, { method: "POST", body: JSON.stringify(body) });
    trouble(answer.ok ? "" : await answer.text().then((said) => JSON.parse(said).error ?? said));
  } catch (error) {
    trouble(`the server does not answer: ${error.message}`);
  }
}

byId("record").addEventListener("click", () => post("record", { on: recording === null }));
connect();
