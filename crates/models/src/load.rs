//! From a folder to a model that runs: configuration, weights, tokenizer.

use std::path::Path;

use crate::device::{Target, on_device};
use crate::family::mismatch::check_model;
use crate::files::foreign;
use crate::files::gguf::Gguf;
use crate::reference::backend::candle_takes;
use crate::text::gguf_tokenizer::NamedIds;
use crate::{
    CandleBert, CandleGpt2, CandleGpt2Classifier, CausalBackend, CausalInfo, ChatTemplate, CpuGpt2Classifier,
    Dtype, Encoder, EncoderHead, EncoderInfo, EncoderUsage, Gpt2, Gpt2Classifier, LoadObserver, LoadOptions,
    ModelError, ModelFolder, Params, Result, Tokenizer, Weights, family, gpt2,
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
    let config = gpt2::Config::from_folder(&folder)?;
    let weights = folder.weights()?;
    check_model(&folder, &weights)?;
    let vocabulary = config.vocab_size;
    Ok(Opened {
        config,
        tokenizer: folder.tokenizer()?,
        chat: folder.chat_template()?,
        weights,
        bos: folder.token_ids_of("bos_token_id", vocabulary)?.first().copied(),
        eos: folder.token_ids_of("eos_token_id", vocabulary)?,
    })
}

fn open_gguf(source: &str) -> Result<Opened> {
    let gguf = Gguf::open(source.as_ref())?;
    let config = gpt2::Config::from_gguf(&gguf)?;
    let ids = NamedIds::from_gguf(&gguf, config.vocab_size)?;
    Ok(Opened {
        tokenizer: Tokenizer::from_gguf(&gguf, config.vocab_size)?,
        chat: ChatTemplate::from_gguf(&gguf)?,
        bos: ids.bos,
        eos: ids.ends,
        weights: Weights::from_gguf(gguf),
        config,
    })
}

/// Loads an encoder of BERT's family, with whatever head its checkpoint has, or a GPT-2 that classifies, from a folder
/// in Hugging Face's layout or an adapter's in PEFT's.
pub fn load_encoder(
    source: &str,
    options: &LoadOptions,
    observer: &dyn LoadObserver,
) -> Result<Loaded<dyn Encoder>> {
    let mut folder = ModelFolder::open_over(source, options.base.as_deref())?;
    if folder.model_type()? == "gpt2" {
        return load_gpt2_classifier(folder, options, observer);
    }
    let config = family::Config::from_folder(&folder)?;
    let tokenizer = folder.tokenizer()?;
    check_vocabulary(tokenizer.as_ref(), config.vocab_size)?;
    let weights = folder.weights()?;
    check_model(&folder, &weights)?;
    let head = family::head_of(&folder, &weights)?;
    let labels = family::labels_of(&folder, &weights, head)?;
    let architecture = config.architecture;
    let pools = head == EncoderHead::SequenceClassification && architecture.classifies_pooled();
    let has_pooler = pools || architecture.pooler && weights.contains("pooler.dense.weight");
    let parameters = config.parameter_count(head, labels.len(), has_pooler);
    let info = EncoderInfo {
        model_type: architecture.model_type,
        vocab_size: config.vocab_size,
        max_positions: config.max_positions(),
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
                Box::new(CandleBert::load(&params, &config, info)?)
            }
            Target::Cpu => Box::new(crate::CpuBert::load(&weights, &config, info, options, observer)?),
        })
    };
    Ok(Loaded { model: on_device(options, load)?, tokenizer, chat: None })
}

/// A GPT-2 that classifies texts, on the CPU.
fn load_gpt2_classifier(
    mut folder: ModelFolder,
    options: &LoadOptions,
    observer: &dyn LoadObserver,
) -> Result<Loaded<dyn Encoder>> {
    let config = gpt2::Config::of_classifier(&folder)?;
    let tokenizer = folder.tokenizer()?;
    check_vocabulary(tokenizer.as_ref(), config.vocab_size)?;
    let padding = gpt2::padding_of(&folder)?;
    let weights = folder.weights()?;
    check_model(&folder, &weights)?;
    if !gpt2::is_classifier(&folder, &weights) {
        return Err(foreign::gpt2_reads_nothing(&folder.config));
    }
    let labels = gpt2::labels_of(&folder, &weights)?;
    let parameters = config.parameter_count() + (labels.len() * config.n_embd) as u64;
    let info = EncoderInfo {
        model_type: "gpt2",
        vocab_size: config.vocab_size,
        max_positions: config.n_positions,
        type_vocab_size: 0,
        hidden_size: config.n_embd,
        layers: config.n_layer,
        heads: config.n_head,
        parameters,
        weight_bytes: 4 * parameters,
        has_pooler: false,
        head: EncoderHead::SequenceClassification,
        labels,
        usage: EncoderUsage::from_folder(&folder, tokenizer.as_ref())?,
        dtype: Dtype::F32,
        device: Target::Cpu.device(),
        device_name: None,
        threads: options.threads,
        instruction_set: candlewick_kernels::isa().to_string(),
    };
    let load = |target: Target| -> Result<Box<dyn Encoder>> {
        let info = info.clone();
        Ok(match target {
            #[cfg(feature = "cuda")]
            Target::Gpu(_) => {
                return Err(ModelError::UnsupportedDevice("a GPT-2 that classifies texts on cuda".into()));
            }
            Target::Cpu if options.reference => {
                candle_takes(options, false)?;
                let params = Params::new(&weights, candle_core::Device::Cpu);
                let model = Gpt2Classifier::load(&params, &config, info.labels.len(), padding)?;
                Box::new(CandleGpt2Classifier::new(model, info))
            }
            Target::Cpu => {
                Box::new(CpuGpt2Classifier::load(&weights, &config, padding, info, options, observer)?)
            }
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
