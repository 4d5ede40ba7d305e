// The service: every request of the page, its key, and its refusals as one kind of error.

const ROOT = new URL("../../", import.meta.url); // the application's address, also where it is mounted below another
const PATIENCE = 6; // times that a full queue is asked again

let key = "";
let askForKey = async () => "";

/** A refusal of the service or a failed connection; its message and `next`, the next step, are for the reader. */
export class ServiceError extends Error {
  constructor({ status = 0, type = "", title = "", detail = "", next_step: next = "" }) {
    super(detail || title);
    this.status = status;
    this.kind = type.split(":").at(-1);
    this.title = title;
    this.next = next;
  }
}

/** Has `ask` bring a key when the service wants one. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** What the service scores with; an error of status 503 at once while it loads. */
export const listModels = async () => (await request("v1/models", {}, PATIENCE)).json();

export const suggest = async (query, model, signal) =>
  (await request(`v1/prompts/suggest?${new URLSearchParams({ q: query, model })}`, { signal })).json();

export const lint = async (labels, model, signal) =>
  (await request("v1/prompts/lint", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ labels, model }), signal })).json();

/**
 * The grey levels of an image at full depth.
 * @param {{file: File, name: string, force: boolean}} image force: also where it is no chest radiograph
 * @returns {Promise<{values: Uint16Array, facts: Object}>} row after row, larger is brighter
 */
export async function fetchPixels({ file, name, force }) {
  const body = new FormData();
  body.append("image", file, name);
  const answer = await request(`v1/pixels?force=${force}`, { method: "POST", body });
  const facts = JSON.parse(answer.headers.get("carzero-image"));
  const values = new Uint16Array(await answer.arrayBuffer());
  if (values.length !== facts.rows * facts.columns) {
    throw new ServiceError({ title: "incomplete", detail: `${values.length} of ${facts.rows * facts.columns} pixels arrived.` });
  }
  return { values, facts };
}

export const predict = (images, labels, model) => score("v1/predict", images, labels, model);

export const ground = (images, labels, model) => score("v1/ground", images, labels, model);

/** The radiograph that comes with the package. */
export const fetchExample = async () => new File([await (await request("page/example.dcm")).blob()], "example.dcm");

async function score(path, images, labels, model) {
  const body = new FormData();
  for (const image of images) body.append("images", image.file, image.name);
  for (const label of labels) body.append("labels", label);
  body.append("model", model);
  body.append("force", String(images.some(({ force }) => force)));
  return (await request(path, { method: "POST", body })).json();
}

async function request(path, options = {}, attempt = 0) {
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError({ title: "unreachable", detail: error.message });
  }
  if (answer.ok) return answer;
  if (answer.status === 401 && (key = await askForKey(key !== ""))) return request(path, options, attempt);
  if (answer.status === 503 && attempt < PATIENCE) {
    await pause(Number(answer.headers.get("retry-after")) || 2 ** attempt / 2);
    return request(path, options, attempt + 1);
  }
  throw new ServiceError({ status: answer.status, ...(await readProblem(answer)) });
}

async function readProblem(answer) {
  try {
    const problem = await answer.json();
    return Object.fromEntries(["type", "title", "detail", "next_step"].map((name) => [name, String(problem[name] ?? "")]));
  } catch {
    return { title: answer.statusText, detail: "" };
  }
}

export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(seconds, 30)));
