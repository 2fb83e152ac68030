/**
 * Names of options in other libraries: transformers, OpenAI's API, transformers.js, llama.cpp, sentence-transformers.
 * Names that only differ in case and underscores (`top_k`) need no entry.
 */

/** Their name, in lower case without `_` and `-` → ours; several where it depends on the function. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  // How long, how many, where to stop.
  maxtokens: ["maxNewTokens", "maxLength"],
  maxcompletiontokens: ["maxNewTokens"],
  maxoutputtokens: ["maxNewTokens"],
  npredict: ["maxNewTokens"],
  numpredict: ["maxNewTokens"],
  mintokens: ["minNewTokens"],
  bestof: ["n"],
  numsamples: ["n"],
  nsamples: ["n"],
  stopstrings: ["stop"],
  stopsequences: ["stop"],
  stopwords: ["stop"],
  stoptokens: ["stopTokenIds", "stop"],
  customstoptriggers: ["stop"],
  eostokenid: ["stopTokenIds"],
  stopids: ["stopTokenIds"],
  badwordsids: ["badWords"],
  bannedstrings: ["badWords"],
  bannedwords: ["badWords"],
  bannedtokens: ["suppressTokens", "badWords"],
  bannedtokenids: ["suppressTokens"],
  randomseed: ["seed"],
  // Sampling.
  temp: ["temperature"],
  repeatpenalty: ["repetitionPenalty"],
  norepeatngrams: ["noRepeatNgramSize"],
  beams: ["numBeams"],
  beamsize: ["numBeams"],
  toplogprobs: ["logprobs"],
  abortsignal: ["signal"],
  // Loading.
  torchdtype: ["dtype"],
  quantization: ["dtype"],
  quantize: ["dtype"],
  precision: ["dtype"],
  devicemap: ["device"],
  nthreads: ["threads"],
  numthreads: ["threads"],
  intraopnumthreads: ["threads"],
  progresscallback: ["onProgress"],
  onload: ["onProgress"],
  loras: ["adapters"],
  branch: ["revision"],
  offline: ["localFilesOnly"],
  // Understanding.
  normalizeembeddings: ["normalize"],
  poolingmode: ["pooling"],
  labels: ["candidateLabels"],
  classes: ["candidateLabels", "labels"],
  docstride: ["stride"],
  // Training.
  lr: ["learningRate"],
  numtrainepochs: ["epochs"],
  numepochs: ["epochs"],
  perdevicetrainbatchsize: ["batchSize"],
  trainbatchsize: ["batchSize"],
  outputdir: ["output"],
  traindataset: ["train"],
  trainfile: ["train"],
  trainingdata: ["train"],
  evaldataset: ["validation"],
  validationfile: ["validation"],
  evalstrategy: ["evalSteps"],
  optim: ["optimizer"],
  labelsmoothingfactor: ["labelSmoothing"],
  loraconfig: ["lora"],
  peftconfig: ["lora"],
  resumefromcheckpoint: ["resume"],
  r: ["rank"],
  loraalpha: ["alpha"],
  loradropout: ["dropout"],
  maxgradientnorm: ["maxGradNorm"],
  gradclip: ["maxGradNorm"],
  modelname: ["model"],
  modelnameorpath: ["model"],
  modelid: ["model"],
  dataset: ["data", "train"],
  testfile: ["data"],
};

/**
 * Options of other libraries that Candlewick lacks, and what to do instead; only said where one of `where` is an
 * option.
 */
const NOTES: readonly { names: readonly string[]; where: readonly string[]; note: string }[] = [
  { names: ["dosample"], where: ["temperature"], note: "temperature: 0 is greedy search, any other temperature samples" },
  { names: ["stream", "streamer"], where: ["maxNewTokens"], note: "every generation streams: iterate it, or await its result" },
  { names: ["maxlength"], where: ["maxNewTokens"], note: "did you mean maxNewTokens? It does not count the prompt, which max_length does" },
  { names: ["minlength"], where: ["minNewTokens"], note: "did you mean minNewTokens? It does not count the prompt, which min_length does" },
  { names: ["padtokenid"], where: ["maxNewTokens"], note: "leave it out: nothing is padded" },
  { names: ["usecache"], where: ["maxNewTokens"], note: "leave it out: keys and values are always cached" },
  { names: ["returnfulltext"], where: ["maxNewTokens"], note: 'it is an option of pipeline("text-generation"); a stream has the new text alone' },
  { names: ["prompt", "messages"], where: ["maxNewTokens"], note: 'the prompt is the first argument; messages are for pipeline("dialogue")' },
  { names: ["typicalp", "mirostat", "mirostattau", "epsiloncutoff", "tfs", "tfsz"], where: ["topP"], note: "it is not supported; topK, topP and minP are" },
  { names: ["quantized"], where: ["dtype"], note: 'did you mean dtype? "q8_0" and "q4_0" quantise while loading' },
  { names: ["loadin8bit"], where: ["dtype"], note: 'did you mean dtype: "q8_0"?' },
  { names: ["loadin4bit"], where: ["dtype"], note: 'did you mean dtype: "q4_0"?' },
  {
    names: ["logitsprocessor", "logitsprocessors", "logitprocessor", "logitprocessors", "logitswarper", "prefixallowedtokensfn", "customlogitsprocessor"],
    where: ["logitBias"],
    note: "no function of yours runs between two tokens; logitBias, badWords, suppressTokens and the penalties change what is chosen, and with maxNewTokens, continueFrom and logprobs you choose token by token (docs/api.md)",
  },
  { names: ["cachedir"], where: ["localFilesOnly"], note: "the cache is the hub's own: set HF_HOME or HF_HUB_CACHE" },
  { names: ["token", "useauthtoken", "accesstoken", "hftoken"], where: ["localFilesOnly"], note: "set HF_TOKEN, or log in with the hub's own tools" },
  { names: ["gpulayers", "ngl", "ngpulayers"], where: ["device"], note: 'did you mean device: "cuda"? A model is on one device' },
  { names: ["contextsize", "nctx"], where: ["device"], note: "leave it out: a model has the positions that its config.json says" },
  { names: ["fp16", "bf16"], where: ["learningRate"], note: "training is in f32" },
];

const plain = (text: string): string => text.replaceAll(/[_-]/g, "").toLowerCase();

/**
 * What to say of an option that another library has, for a function with the options `known`; `undefined`: it has no
 * such name.
 */
export function otherLibrary(name: string, known: readonly string[]): string | undefined {
  const wanted = plain(name);
  const note = NOTES.find(({ names, where }) => names.includes(wanted) && where.every((option) => known.includes(option)));
  if (note) return note.note;
  const ours = Object.hasOwn(NAMES, wanted) ? NAMES[wanted]!.filter((option) => known.includes(option)) : [];
  return ours.length > 0 ? `did you mean ${ours.join(" or ")}?` : undefined;
}
