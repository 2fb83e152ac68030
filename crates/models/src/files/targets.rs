//! Which modules of a model an adapter changes, and with what rank and scale: PEFT's rules
//! (`check_target_module_exists` in its `tuners_utils.py`, `get_pattern_key` in its `other.py`), over names as PEFT
//! sees them (`transformer.h.0.attn.c_attn`).

use std::collections::HashSet;

use crate::files::adapter_config::{ADAPTER_CONFIG, AdapterConfig, LayerIndices, ModuleNames, Ordered};
use crate::files::python_regex::{MAX_PATTERN_BYTES, PythonRegex};
use crate::{ModelError, Result};

/// Bytes of all patterns of a configuration: a model with a hundred layers, each with ranks of its own, has 64 kB.
const MAX_BYTES: usize = 8 * MAX_PATTERN_BYTES;
/// Expressions that are compiled, each of some 10 kB. Keys that are plain names are not.
const MAX_COMPILED: usize = 1024;
/// A model with a hundred layers has 700 matrices.
const MAX_KEYS: usize = 8192;

/// What PEFT makes of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `nn.Linear` or GPT-2's `Conv1D`.
    Linear,
    /// The linear layer that gives the output: `"all-linear"` is without it.
    Head,
    Embedding,
    /// What no LoRA can be over: a norm, a block.
    Other,
}

/// What an adapter changes.
#[derive(Debug, Clone)]
pub struct Targets {
    target: Matcher,
    exclude: Option<Matcher>,
    /// Those that are held whole have no LoRA.
    saved: Vec<PythonRegex>,
    layers: Option<Vec<i64>>,
    /// Where a layer's number is in a name.
    numbers: Vec<PythonRegex>,
    ranks: Vec<(Key, usize)>,
    alphas: Vec<(Key, f64)>,
    rank: usize,
    alpha: f64,
    /// The scale is alpha / √rank.
    stabilised: bool,
}

/// A key of `rank_pattern` or `alpha_pattern`: it matches the end of a name, `(.*\.)?(key)$`.
#[derive(Debug, Clone)]
enum Key {
    /// Letters, digits, `_`, and `.`, which stands for any character: most keys, and in large adapters very many.
    Plain(String),
    Pattern(PythonRegex),
}

impl Key {
    fn is_match(&self, name: &str) -> bool {
        let key = match self {
            Self::Pattern(pattern) => return pattern.is_match(name),
            Self::Plain(key) => key.as_bytes(),
        };
        let Some(at) = name.len().checked_sub(key.len()) else { return false };
        let (rest, end) = name.as_bytes().split_at(at);
        (rest.is_empty() || rest.ends_with(b"."))
            && end.iter().zip(key).all(|(c, key)| c == key || *key == b'.')
    }
}

#[derive(Debug, Clone)]
enum Matcher {
    AllLinear,
    Pattern(PythonRegex),
    /// Whole names, or their last parts.
    Ends(HashSet<String>),
}

impl Matcher {
    fn new(
        names: &ModuleNames,
        field: &str,
        compile: &impl Fn(&str, &str, bool) -> Result<PythonRegex>,
    ) -> Result<Self> {
        Ok(match names {
            ModuleNames::One(pattern) => Self::Pattern(compile(field, pattern, true)?),
            ModuleNames::Many(ends) => Self::Ends(ends.iter().cloned().collect()),
        })
    }

    fn is_match(&self, name: &str, kind: Kind) -> bool {
        match self {
            Self::AllLinear => kind == Kind::Linear,
            Self::Pattern(pattern) => pattern.is_match(name),
            Self::Ends(ends) => {
                let mut last_parts = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
                ends.contains(name) || last_parts.any(|end| ends.contains(end))
            }
        }
    }
}

impl Targets {
    /// `defaults`: what PEFT targets in such a model where the configuration does not say.
    ///
    /// # Errors
    /// `Config` naming the field: what PEFT refuses, a pattern that is none, or has what a linear engine lacks.
    pub fn new(config: &AdapterConfig, defaults: &[&str]) -> Result<Self> {
        let invalid =
            |field: &str, reason: &str| ModelError::Config(format!("{ADAPTER_CONFIG}: {field}: {reason}"));
        let mut bytes = 0;
        for (field, length) in lengths(config) {
            bytes += length + 1;
            if length > MAX_PATTERN_BYTES || bytes > MAX_BYTES {
                return Err(invalid(field, &format!("its patterns have over {MAX_PATTERN_BYTES} bytes")));
            }
        }
        for (field, keys) in
            [("rank_pattern", config.rank_pattern.0.len()), ("alpha_pattern", config.alpha_pattern.0.len())]
        {
            if keys > MAX_KEYS {
                return Err(invalid(field, &format!("over {MAX_KEYS} patterns")));
            }
        }
        let compiled = std::cell::Cell::new(0);
        let compile = |field: &str, pattern: &str, full: bool| {
            compiled.set(compiled.get() + 1);
            if compiled.get() > MAX_COMPILED {
                return Err(invalid(field, &format!("over {MAX_COMPILED} patterns")));
            }
            let compiled = if full { PythonRegex::full(pattern) } else { PythonRegex::prefix(pattern) };
            compiled.map_err(|reason| {
                let begin: String = pattern.chars().take(80).collect();
                invalid(field, &format!("the pattern {begin:?}: {reason}"))
            })
        };
        let one = matches!(config.target_modules, Some(ModuleNames::One(_)));
        if one && (config.layers_to_transform.is_some() || config.layers_pattern.is_some()) {
            let reason = "cannot be given where target_modules is one string";
            return Err(invalid("layers_to_transform, layers_pattern", reason));
        }
        let target = match &config.target_modules {
            Some(ModuleNames::One(name)) if name.to_lowercase() == "all-linear" => Matcher::AllLinear,
            Some(names) => Matcher::new(names, "target_modules", &compile)?,
            None => Matcher::Ends(defaults.iter().map(|name| name.to_string()).collect()),
        };
        let exclude = config.exclude_modules.as_ref().filter(|names| !is_empty(names));
        let numbers = layer_numbers(config, &compile)?;
        if !numbers.is_empty() && config.layers_to_transform.is_none() {
            return Err(invalid("layers_pattern", "without layers_to_transform"));
        }
        let saved = config.modules_to_save.iter().flatten();
        Ok(Self {
            target,
            exclude: exclude.map(|names| Matcher::new(names, "exclude_modules", &compile)).transpose()?,
            saved: saved
                .map(|name| compile("modules_to_save", &format!(r"(^|.*\.){name}($|\..*)"), false))
                .collect::<Result<_>>()?,
            layers: match &config.layers_to_transform {
                None => None,
                Some(LayerIndices::One(layer)) => Some(vec![*layer]),
                Some(LayerIndices::Many(layers)) => Some(layers.clone()).filter(|layers| !layers.is_empty()),
            },
            numbers: match numbers.is_empty() {
                false => numbers,
                true => vec![compile("layers_pattern", r".*?\.[^.]*\.(?P<idx>\d+)\.", false)?],
            },
            ranks: patterns("rank_pattern", &config.rank_pattern, &compile)?,
            alphas: patterns("alpha_pattern", &config.alpha_pattern, &compile)?,
            rank: config.r,
            alpha: config.lora_alpha,
            stabilised: config.use_rslora,
        })
    }

    /// The field that keeps the adapter from the module `name`, as PEFT sees it; `None`: it has a LoRA.
    pub fn refusal(&self, name: &str, kind: Kind) -> Option<&'static str> {
        if self.exclude.as_ref().is_some_and(|exclude| exclude.is_match(name, kind)) {
            return Some("exclude_modules");
        }
        if self.saved.iter().any(|saved| saved.is_match(name)) {
            return Some("modules_to_save");
        }
        if !self.target.is_match(name, kind) {
            return Some("target_modules");
        }
        match (&self.layers, &self.target) {
            (Some(layers), Matcher::Ends(_)) => {
                let layer = self.numbers.iter().find_map(|number| number.group(name, "idx")).flatten();
                let layer: Option<i64> = layer.and_then(|digits| digits.parse().ok());
                let there = layer.is_some_and(|layer| layers.contains(&layer));
                if there { None } else { Some("layers_to_transform") }
            }
            _ => None,
        }
    }

    pub fn rank_of(&self, name: &str) -> usize {
        first(&self.ranks, name).unwrap_or(self.rank)
    }

    /// alpha / rank, or alpha / √rank where the adapter is rank-stabilised.
    ///
    /// # Errors
    /// `Config`: a rank of none, a scale that f32 cannot hold.
    pub fn scale_of(&self, name: &str) -> Result<f32> {
        let rank = self.rank_of(name);
        let alpha = first(&self.alphas, name).unwrap_or(self.alpha);
        let divisor = if self.stabilised { (rank as f64).sqrt() } else { rank as f64 };
        let scale = (alpha / divisor) as f32;
        if rank == 0 || !scale.is_finite() {
            let reason = if rank == 0 { "r is 0".to_string() } else { format!("lora_alpha is {alpha:e}") };
            let name: String = name.chars().take(200).collect();
            return Err(ModelError::Config(format!("{ADAPTER_CONFIG}: of {name}, {reason}")));
        }
        Ok(scale)
    }

    /// The pattern of `rank_pattern` or `alpha_pattern` (by their place there) that matches none of `names`.
    pub fn unused(&self, names: &[String]) -> Option<(&'static str, usize)> {
        let no = |pattern: &Key| !names.iter().any(|name| pattern.is_match(name));
        let rank = self.ranks.iter().position(|(pattern, _)| no(pattern)).map(|at| ("rank_pattern", at));
        rank.or_else(|| {
            let at = self.alphas.iter().position(|(pattern, _)| no(pattern))?;
            Some(("alpha_pattern", at))
        })
    }
}

/// The value of the first pattern that matches.
fn first<T: Copy>(patterns: &[(Key, T)], name: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(name)).map(|(_, value)| *value)
}

fn patterns<T: Copy>(
    field: &str,
    given: &Ordered<T>,
    compile: &impl Fn(&str, &str, bool) -> Result<PythonRegex>,
) -> Result<Vec<(Key, T)>> {
    let one = |(key, value): &(String, T)| {
        let is_plain = key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'.');
        let key = match is_plain {
            true => Key::Plain(key.clone()),
            false => Key::Pattern(compile(field, &format!(r"(.*\.)?({key})$"), false)?),
        };
        Ok((key, *value))
    };
    given.0.iter().map(one).collect()
}

/// `layers_pattern`; empty where any name of a layer will do.
fn layer_numbers(
    config: &AdapterConfig,
    compile: &impl Fn(&str, &str, bool) -> Result<PythonRegex>,
) -> Result<Vec<PythonRegex>> {
    let names = match &config.layers_pattern {
        None => &[][..],
        Some(ModuleNames::One(name)) if name.is_empty() => &[],
        Some(ModuleNames::One(name)) => std::slice::from_ref(name),
        Some(ModuleNames::Many(names)) => names,
    };
    let one = |name: &String| {
        let pattern = format!(r"(?:^|.*?\.){name}\.(?P<idx>\d+)\.");
        compile("layers_pattern", &pattern, false)
    };
    names.iter().map(one).collect()
}

fn is_empty(names: &ModuleNames) -> bool {
    match names {
        ModuleNames::One(name) => name.is_empty(),
        ModuleNames::Many(names) => names.is_empty(),
    }
}

/// Bytes of each of the patterns and names.
fn lengths(config: &AdapterConfig) -> Vec<(&'static str, usize)> {
    let mut all = Vec::new();
    for (field, names) in [
        ("target_modules", &config.target_modules),
        ("exclude_modules", &config.exclude_modules),
        ("layers_pattern", &config.layers_pattern),
    ] {
        match names {
            Some(ModuleNames::One(name)) => all.push((field, name.len())),
            Some(ModuleNames::Many(names)) => all.extend(names.iter().map(|name| (field, name.len()))),
            None => (),
        }
    }
    all.extend(config.modules_to_save.iter().flatten().map(|name| ("modules_to_save", name.len())));
    all.extend(config.rank_pattern.0.iter().map(|(key, _)| ("rank_pattern", key.len())));
    all.extend(config.alpha_pattern.0.iter().map(|(key, _)| ("alpha_pattern", key.len())));
    all
}
