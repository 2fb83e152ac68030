//! From a folder to a model that runs: configuration, weights, tokenizer.

use std::path::Path;

use crate::device::{Target, on_device};
use crate::files::gguf::Gguf;
use crate::reference::backend::candle_takes;
use crate::{
    Bert, CandleBert, CandleGpt2, CausalBackend, CausalInfo, ChatTemplate, Dtype, Encoder, EncoderHead,
    EncoderInfo, EncoderUsage, Gpt2, LoadObserver, LoadOptions, ModelError, ModelFolder, Params, Result,
    Tokenizer, Weights, bert, gpt2,
};

/// Of a CPU: sequences that run at once, and tokens beyond which a step is no more efficient.
const LANES: usize = 64;
const STEP_TOKENS: usize = 256;

/// A model with what else its folder holds.
pub struct Loaded<M: ?Sized> {
    pub model: Box<M>,
    pub tokenizer: Option<Tokenizer>,
    /// Of a GPT-2.
    pub chat: Option<ChatTemplate>,
}

/// Loads a GPT-2 from a folder in Hugging Face's layout, from a GGUF file, or from an adapter's folder in PEFT's
/// layout.
pub fn load_causal(
    source: &str,
    options: &LoadOptions,
    observer: &dyn LoadObserver,
) -> Result<Loaded<dyn CausalBackend>> {
    let is_gguf = Path::new(source).is_file();
    let Opened { config, tokenizer, chat, weights, bos, eos } =
        if is_gguf { open_gguf(source)? } else { open_folder(source, options)? };
    check_vocabulary(tokenizer.as_ref(), config.vocab_size)?;
    let info = CausalInfo {
        model_type: "gpt2",
        vocab_size: config.vocab_size,
        n_positions: config.n_positions,
        layers: config.n_layer,
        hidden_size: config.n_embd,
        heads: config.n_head,
        parameters: config.parameter_count(),
        weight_bytes: 4 * config.parameter_count(),
        bos_token_id: bos,
        eos_token_ids: eos,
        dtype: Dtype::F32,
        device: Target::Cpu.device(),
        device_name: None,
        threads: options.threads,
        instruction_set: candlewick_kernels::isa().to_string(),
        lanes: LANES,
        step_tokens: STEP_TOKENS,
        adapters: options.adapters.iter().map(|(name, _)| name.clone()).collect(),
    };
    let load = |target: Target| -> Result<Box<dyn CausalBackend>> {
        let info = CausalInfo { device: target.device(), device_name: target.device_name(), ..info.clone() };
        Ok(match target {
            #[cfg(feature = "cuda")]
            Target::Gpu(gpu) => {
                Box::new(crate::cuda::gpt2::CudaGpt2::load(&weights, &config, info, options, observer, gpu)?)
            }
            Target::Cpu if options.reference => {
                candle_takes(options, is_gguf)?;
                let params = Params::new(&weights, candle_core::Device::Cpu);
                Box::new(CandleGpt2::new(Gpt2::load(&params, &config)?, info, options)?)
            }
            Target::Cpu => Box::new(crate::CpuGpt2::load(&weights, &config, info, options, observer)?),
        })
    };
    Ok(Loaded { model: on_device(options, load)?, tokenizer, chat })
}

/// A GPT-2's parts before its weights are read.
struct Opened {
    config: gpt2::Config,
    tokenizer: Option<Tokenizer>,
    chat: Option<ChatTemplate>,
    weights: Weights,
    bos: Option<u32>,
    eos: Vec<u32>,
}

fn open_folder(source: &str, options: &LoadOptions) -> Result<Opened> {
    let mut folder = ModelFolder::open_over(source, options.base.as_deref())?;
    Ok(Opened {
        config: gpt2::Config::from_folder(&folder)?,
        tokenizer: folder.tokenizer()?,
        chat: folder.chat_template()?,
        weights: folder.weights("transformer")?,
        bos: folder.token_ids("bos_token_id")?.first().copied(),
        eos: folder.token_ids("eos_token_id")?,
    })
}

fn open_gguf(source: &str) -> Result<Opened> {
    let gguf = Gguf::open(source.as_ref())?;
    let id = |key: &str| gguf.size_if_any(key).and_then(|id| u32::try_from(id).ok());
    Ok(Opened {
        config: gpt2::Config::from_gguf(&gguf)?,
        tokenizer: Tokenizer::from_gguf(&gguf)?,
        chat: ChatTemplate::from_gguf(&gguf)?,
        bos: id("tokenizer.ggml.bos_token_id"),
        eos: id("tokenizer.ggml.eos_token_id").into_iter().collect(),
        weights: Weights::from_gguf(gguf),
    })
}

/// Loads a BERT, with whatever head its checkpoint has, from a folder in Hugging Face's layout or an adapter's in
/// PEFT's.
pub fn load_encoder(
    source: &str,
    options: &LoadOptions,
    observer: &dyn LoadObserver,
) -> Result<Loaded<dyn Encoder>> {
    let mut folder = ModelFolder::open_over(source, options.base.as_deref())?;
    let config = bert::Config::from_folder(&folder)?;
    let tokenizer = folder.tokenizer()?;
    check_vocabulary(tokenizer.as_ref(), config.vocab_size)?;
    let weights = folder.weights("bert")?;
    let head = bert::head_of(&folder, &weights);
    let labels = bert::labels_of(&folder, &weights, head)?;
    let has_pooler = weights.contains("pooler.dense.weight") || head == EncoderHead::SequenceClassification;
    let parameters = config.parameter_count(head, labels.len(), has_pooler);
    let info = EncoderInfo {
        model_type: "bert",
        vocab_size: config.vocab_size,
        max_positions: config.max_position_embeddings,
        type_vocab_size: config.type_vocab_size,
        hidden_size: config.hidden_size,
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        parameters,
        weight_bytes: 4 * parameters,
        has_pooler,
        head,
        labels,
        usage: EncoderUsage::from_folder(&folder, tokenizer.as_ref())?,
        dtype: Dtype::F32,
        device: Target::Cpu.device(),
        device_name: None,
        threads: options.threads,
        instruction_set: candlewick_kernels::isa().to_string(),
    };
    let load = |target: Target| -> Result<Box<dyn Encoder>> {
        let info = EncoderInfo { device: target.device(), device_name: target.device_name(), ..info.clone() };
        Ok(match target {
            #[cfg(feature = "cuda")]
            Target::Gpu(gpu) => {
                Box::new(crate::cuda::bert::CudaBert::load(&weights, &config, info, options, observer, gpu)?)
            }
            Target::Cpu if options.reference => {
                candle_takes(options, false)?;
                let params = Params::new(&weights, candle_core::Device::Cpu);
                let bert = Bert::load(&params, &config, has_pooler, head, info.labels.len())?;
                Box::new(CandleBert::new(bert, info))
            }
            Target::Cpu => Box::new(crate::CpuBert::load(&weights, &config, info, options, observer)?),
        })
    };
    Ok(Loaded { model: on_device(options, load)?, tokenizer, chat: None })
}

fn check_vocabulary(tokenizer: Option<&Tokenizer>, embedding: usize) -> Result<()> {
    match tokenizer.map(Tokenizer::vocab_size) {
        Some(tokenizer) if tokenizer > embedding => {
            Err(ModelError::VocabularyMismatch { tokenizer, embedding })
        }
        _ => Ok(()),
    }
}
