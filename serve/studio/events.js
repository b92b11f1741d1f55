/** Yield `{number, kind, data}` of a reply that is a text/event-stream. (EventSource cannot POST.) */
export async function* readEvents(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream broke already: nothing is left to cancel
  }
}

function parse(block) {
  const fields = new Map();
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trimStart());
  }
  if (!fields.has("data")) return null; // a comment that keeps the line alive
  return { number: Number(fields.get("id") ?? -1), kind: fields.get("event"), data: JSON.parse(fields.get("data")) };
}
