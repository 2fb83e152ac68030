export { type ApiKey } from "./src/access.js";
export { type HandlerOptions } from "./src/core.js";
export { createHandler, type CreateHandlerOptions, type Handler } from "./src/handler.js";
export { listen, type ListenOptions, type Listening } from "./src/listen.js";
export { type Encoder, type Generator, type ServedModel } from "./src/models.js";
