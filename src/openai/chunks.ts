/**
 * The tokens of a generation as the pieces that an API's stream sends: text that is sure to stay, with the tokens that
 * it came from.
 */
import type { TokenStream } from "../stream.js";
import type { FinishReason, GenerationResult, Token } from "../types.js";

/** A piece of one sequence's text. */
export interface Piece {
  readonly sequence: number;
  /** Never empty but for the last piece of a sequence. */
  readonly text: string;
  /** Those that the text came from, if they have log-probabilities. */
  readonly tokens: readonly Token[];
}

/**
 * Holds a sequence's tokens back until their text is sure: some bytes of a character have none yet, nor has what may
 * become a stop string. So a report that is streamed has the tokens of one that is not.
 */
export class PieceMaker {
  readonly #held = new Map<number, Token[]>();

  add(token: Token): Piece | undefined {
    const { sequence, text, logprob } = token;
    if (logprob === undefined) return text === "" ? undefined : { sequence, text, tokens: [] };
    const held = this.#held.get(sequence) ?? [];
    held.push(token);
    this.#held.set(sequence, text === "" ? held : []);
    return text === "" ? undefined : { sequence, text, tokens: held };
  }

  /**
   * The tokens of a sequence that are held at its end. They belong to the text where its length ended it, in the middle
   * of a character or of what might have become a stop string; else they are an end token or a stop string, and do not.
   */
  rest(sequence: number, reason: FinishReason): Piece | undefined {
    const tokens = this.#held.get(sequence) ?? [];
    return reason === "length" && tokens.length > 0 ? { sequence, text: "", tokens } : undefined;
  }
}

/** All of a finished sequence in one piece: what a stream's pieces make when they are joined. */
export function wholePiece(tokens: readonly Token[], sequence: number, reason: FinishReason): Piece {
  const maker = new PieceMaker();
  const pieces = [...tokens.map((token) => maker.add({ ...token, sequence })), maker.rest(sequence, reason)];
  const whole = pieces.filter((piece): piece is Piece => piece !== undefined);
  return { sequence, text: whole.map(({ text }) => text).join(""), tokens: whole.flatMap((piece) => piece.tokens) };
}

/** The part of a `TokenStream` that answers are made of. */
export type TokenSource = Pick<TokenStream, "next" | "result">;

/** An event for each piece of a stream, and what the stream came to. */
export async function* eventsOfPieces(
  stream: TokenSource,
  eventOf: (piece: Piece) => string | Promise<string>,
): AsyncGenerator<string, GenerationResult> {
  const pieces = piecesOf(stream);
  for (;;) {
    const { value, done } = await pieces.next();
    if (done) return value;
    yield eventOf(value);
  }
}

/** The pieces of a stream as they come, and what it came to. */
export async function* piecesOf(stream: TokenSource): AsyncGenerator<Piece, GenerationResult> {
  const maker = new PieceMaker();
  for (;;) {
    const { value: token, done } = await stream.next();
    if (done) break;
    const piece = maker.add(token);
    if (piece) yield piece;
  }
  const result = await stream.result;
  for (const [sequence, { finishReason }] of result.sequences.entries()) {
    const rest = maker.rest(sequence, finishReason);
    if (rest) yield rest;
  }
  return result;
}
