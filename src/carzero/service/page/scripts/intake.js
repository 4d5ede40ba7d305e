// From what is dropped or chosen to a list of files: folders are walked, what is plainly no image is left out and counted.

const NO_IMAGE = /(^|\/)(\.[^/]*|thumbs\.db|dicomdir)$|\.(txt|csv|tsv|json|jsonl|ya?ml|xml|html?|md|pdf|docx?|xlsx?|zip|gz|tar|7z|rar|parquet|py|log)$/i;

const ARCHIVE = /\.(zip|gz|tar|7z|rar)$/i;

/** A file and the name it is shown by, which has its folders where it came from one. */
const named = (file, name = file.webkitRelativePath || file.name) => ({ file, name });

/** The files of an input, those of a folder sorted by name. */
export function filesOfInput(input) {
  return sorted([...input.files].map((file) => named(file)));
}

/** Whether a drag carries files. */
export const hasFiles = (transfer) => [...(transfer?.types ?? [])].includes("Files");

/** The files of a drop, those of dropped folders too. Must be called within the event, which empties its list afterwards. */
export async function filesOfDrop(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null);
  const plain = items.map((item, index) => (entries[index]?.isDirectory ? null : item.getAsFile()));
  const found = await Promise.all(entries.map((entry, index) => (plain[index] ? [named(plain[index])] : walk(entry))));
  return sorted(found.flat());
}

/** Whether a file is by its name a box of files. */
export const isArchive = ({ name }) => ARCHIVE.test(name);

/** Parts files into those that may be images and those that by their name are not. */
export function partImages(files) {
  const images = files.filter(({ name }) => !NO_IMAGE.test(name));
  return { images, others: files.filter(({ name }) => NO_IMAGE.test(name)) };
}

async function walk(entry) {
  if (!entry) return [];
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [named(file, entry.fullPath.replace(/^\//, ""))];
  }
  const reader = entry.createReader();
  const children = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at most at once
    if (some.length === 0) break;
    children.push(...some);
  }
  return (await Promise.all(children.map(walk))).flat();
}

const byName = new Intl.Collator(undefined, { numeric: true });
const sorted = (files) => shorten(files.sort((one, other) => byName.compare(one.name, other.name)));

/** Names within the one folder that all files are from, as `carzero predict FOLDER` names them. */
function shorten(files) {
  const folder = files[0]?.name.split("/")[0];
  const shared = files.every(({ name }) => name.startsWith(`${folder}/`));
  return shared ? files.map(({ file, name }) => named(file, name.slice(folder.length + 1))) : files;
}
