// A reader of a relay's stream in JavaScript, with ioredis: the rule of the page `relay` of the documentation.
//
//   node follow.js PORT KEY SILENCE_SECONDS
//
// Prints CHANNEL:PAYLOAD for each notification, "gap" and "silent".
const Redis = require("ioredis");

const parse = (id) => id.toString().split("-").map(BigInt);
const below = ([a, b], [c, d]) => a < c || (a === c && b < d);

async function* follow(redis, key, silence) {
    let position, cursor, gap;
    for (;;) {
        if (position === undefined) {
            const newest = await redis.xrevrangeBuffer(key, "+", "-", "COUNT", 100);
            const last = newest.map(([id]) => id.toString()).find((id) => !id.endsWith("-0"));
            position = cursor = last ?? "0-0";
            if (gap) yield { gap };
        }
        const read = await redis.xreadBuffer("COUNT", 100, "BLOCK", silence * 1000, "STREAMS", key, cursor);
        if (!read) {
            yield { silent: true };
            const [newest] = await redis.xrevrangeBuffer(key, "+", "-", "COUNT", 1);
            const top = parse(newest ? newest[0] : "0-0");
            if (below(top, parse(position))) [position, gap] = [undefined, "the stream has lost entries"];
            else if (below(top, parse(cursor))) cursor = position;
            continue;
        }
        for (const [id, list] of read[0][1]) {
            const entry = {};
            for (let i = 0; i < list.length; i += 2) entry[list[i]] = list[i + 1];
            if (entry.v.toString() !== "1") throw new Error("update this program");
            cursor = id.toString();
            const kind = entry.k.toString();
            if (kind === "claim") continue;
            const [term, sequence] = parse(position);
            const [newTerm, newSequence] = parse(cursor);
            const follows = kind === "start" ? entry.p?.toString() === position : newTerm === term && newSequence === sequence + 1n;
            position = cursor;
            if (!follows) yield { gap: "entries are missing" };
            if (kind === "gap") yield { gap: entry.e.toString() };
            for (let rest = entry.n ?? Buffer.alloc(0); rest.length > 0; rest = rest.subarray(1 + rest.readInt32BE(1))) {
                const text = rest.subarray(9, rest.readInt32BE(1));
                const end = text.indexOf(0);
                yield { channel: text.subarray(0, end), payload: text.subarray(end + 1), pid: rest.readInt32BE(5) };
            }
        }
    }
}

async function main() {
    const [port, key, silence] = process.argv.slice(2);
    for await (const item of follow(new Redis(Number(port)), key, Number(silence))) {
        if (item.gap) console.log("gap");
        else if (item.silent) console.log("silent");
        else console.log(`${item.channel}:${item.payload}`);
    }
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
