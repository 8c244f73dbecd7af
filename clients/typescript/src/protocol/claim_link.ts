/**
 * The text in a claim's QR code: where the server is and the code, in one string that a till's camera can read.
 *
 * `mstore://claim?server=https%3A%2F%2Fsync.example.com&code=01AB-CDEF-GHJK`: both values percent-encoded, in any order; other parameters are passed over.
 */

const BEGINNING = "mstore://claim?";
/** Longest text that is read, bytes. */
const LINK_BYTES_MAX = 2_048;

export interface ClaimLink {
  readonly server: string;
  /** As secret as the text. */
  readonly code: string;
}

/** Reads what a camera gave; `undefined` for anything else, such as the code alone. */
export function parseClaimLink(text: string): ClaimLink | undefined {
  const trimmed = text.trim();
  if (new TextEncoder().encode(trimmed).length > LINK_BYTES_MAX || !trimmed.toLowerCase().startsWith(BEGINNING)) return undefined;
  const pairs = trimmed.slice(BEGINNING.length).split("&").map((pair) => pair.split(/=(.*)/su));
  const value = (wanted: string): string | undefined => {
    const raw = pairs.find(([name]) => name === wanted)?.[1];
    try {
      return raw === undefined || raw === "" ? undefined : decodeURIComponent(raw);
    } catch {
      return undefined;
    }
  };
  const [server, code] = [value("server"), value("code")];
  if (server === undefined || code === undefined || !/^https?:\/\//u.test(server)) return undefined;
  return { server, code };
}

/** What the server writes for them. */
export function claimLinkText({ server, code }: ClaimLink): string {
  return `${BEGINNING}server=${encoded(server)}&code=${encoded(code)}`;
}

function encoded(raw: string): string {
  return encodeURIComponent(raw).replace(/[!'()*]/gu, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}
