/**
 * `candlewick/openai`: answers in the form of OpenAI's API, for those who write a server of their own. `toResponse()`
 * and `candlewick-server` make theirs with it.
 */
export { eventsOfPieces, type Piece, PieceMaker, piecesOf, type TokenSource, wholePiece } from "./chunks.js";
export { type AnswerHead, type ApiUsage, apiUsage, completionEvents, type EventOptions } from "./completion.js";
export { errorBody, type ErrorBody, retryHeaders } from "./errors.js";
export { DONE, event, EVENT_HEADERS, eventStream, type EventStreamOptions } from "./events.js";
export {
  chatLogprobs,
  type ChatLogprob,
  type ChatToken,
  type CompletionLogprobs,
  CompletionReport,
  type Reported,
  type TokenBytes,
  tokenText,
} from "./logprobs.js";
