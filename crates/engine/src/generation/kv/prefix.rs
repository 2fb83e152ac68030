//! Blocks that a prompt shares with sequences before it: the next turn of a dialogue, another question under the same
//! instructions. Exact, because a position's keys and values do not depend on the pass that computed them.
//!
//! A tree: a node is a block, its path the tokens up to the block's end. A whole block is there from the moment it is
//! computed, while its sequence runs and after; the block in which a sequence ended comes when it has ended. Who shares
//! a part of a block copies it when writing to it. Blocks that nobody else holds are given up when memory is needed,
//! the least recently used first, and from the leaves.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::allocator::Block;
use super::table::Table;

/// What prefixes are shared within: sequences with the same adapter (it changes keys and values) and scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Realm {
    pub adapter: Option<usize>,
    pub scope: Option<Arc<str>>,
}

/// A place in the tree. Never used again after its node has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u64);

/// How many of a sequence's whole blocks are in the tree, and the place of the last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Published {
    pub blocks: usize,
    pub at: Option<NodeId>,
}

impl Published {
    /// Offers the blocks of `tokens`, which were computed, that have become whole. Where the same tokens are there
    /// already, the sequence goes on with those and frees its own.
    pub fn offer(&mut self, prefixes: &mut Prefixes, realm: &Realm, tokens: &[u32], table: &mut Table) {
        let whole = tokens.chunks_exact(table.size()).enumerate().skip(self.blocks);
        for (index, tokens) in whole {
            let Some((at, block)) = prefixes.insert(realm, self.at, tokens, table.block(index)) else {
                return;
            };
            self.at = Some(at);
            self.blocks += 1;
            table.replace(index, block);
        }
    }
}

struct Node {
    /// `None`: the root of a realm.
    block: Option<Block>,
    /// Of the block.
    tokens: Rc<[u32]>,
    parent: Option<NodeId>,
    children: HashMap<Rc<[u32]>, NodeId>,
    /// When it was last asked for.
    used: u64,
}

#[derive(Default)]
pub(crate) struct Prefixes {
    nodes: HashMap<NodeId, Node>,
    roots: HashMap<Realm, NodeId>,
    /// Nodes without children, the least recently used first.
    leaves: BTreeSet<(u64, NodeId)>,
    /// Counts calls.
    clock: u64,
    last_id: u64,
}

impl Prefixes {
    /// The block after `at` that holds `tokens`, and its place. `at` is the block before; `None`: there is none.
    pub fn next(&mut self, realm: &Realm, at: Option<NodeId>, tokens: &[u32]) -> Option<(NodeId, Block)> {
        let at = at.or_else(|| self.roots.get(realm).copied())?;
        let child = *self.nodes.get(&at)?.children.get(tokens)?;
        self.touch(child);
        Some((child, self.nodes.get(&child)?.block.clone()?))
    }

    /// The block after `at` that begins most like `tokens`, and how many tokens that are; at least `least`.
    pub fn beginning(
        &mut self,
        realm: &Realm,
        at: Option<NodeId>,
        tokens: &[u32],
        least: usize,
    ) -> Option<(usize, Block)> {
        let at = at.or_else(|| self.roots.get(realm).copied())?;
        let common = |(known, child): (&Rc<[u32]>, &NodeId)| {
            (known.iter().zip(tokens).take_while(|(a, b)| a == b).count(), *child)
        };
        let (count, child) = self.nodes.get(&at)?.children.iter().map(common).max()?;
        if count < least {
            return None;
        }
        self.touch(child);
        Some((count, self.nodes.get(&child)?.block.clone()?))
    }

    /// Grows with every block that is offered: what was not there is not there before it grows.
    pub fn version(&self) -> u64 {
        self.last_id
    }

    /// Offers a computed block of `tokens` after `at`. Returns its place, and the block that is there: another one if
    /// somebody has computed the same tokens before. `None`: `at` has gone.
    pub fn insert(
        &mut self,
        realm: &Realm,
        at: Option<NodeId>,
        tokens: &[u32],
        block: &Block,
    ) -> Option<(NodeId, Block)> {
        if let Some(known) = self.next(realm, at, tokens) {
            return Some(known);
        }
        let at = at.unwrap_or_else(|| self.root(realm));
        if !self.nodes.contains_key(&at) {
            return None;
        }
        let tokens: Rc<[u32]> = Rc::from(tokens);
        let id = self.add(Some(block.clone()), tokens.clone(), Some(at));
        let parent = self.nodes.get_mut(&at)?;
        parent.children.insert(tokens, id);
        self.leaves.remove(&(parent.used, at));
        self.leaves.insert((self.clock, id));
        Some((id, block.clone()))
    }

    fn root(&mut self, realm: &Realm) -> NodeId {
        if let Some(root) = self.roots.get(realm) {
            return *root;
        }
        let root = self.add(None, Rc::from([]), None);
        self.roots.insert(realm.clone(), root);
        root
    }

    /// Gives up the least recently used leaf that nobody else holds; `false`: there is none.
    pub fn evict(&mut self) -> bool {
        let idle = |(_, id): &&(u64, NodeId)| self.nodes.get(id).is_some_and(Node::is_idle);
        let Some(&(used, id)) = self.leaves.iter().find(idle) else { return false };
        self.leaves.remove(&(used, id));
        self.remove(id);
        true
    }

    fn remove(&mut self, id: NodeId) {
        let Some(node) = self.nodes.remove(&id) else { return };
        let Some(parent_id) = node.parent else {
            self.roots.retain(|_, root| *root != id);
            return;
        };
        let Some(parent) = self.nodes.get_mut(&parent_id) else { return };
        parent.children.remove(&node.tokens);
        if parent.children.is_empty() {
            match parent.block {
                Some(_) => {
                    self.leaves.insert((parent.used, parent_id));
                }
                None => self.remove(parent_id),
            }
        }
    }

    /// Blocks that [`evict`](Self::evict) could free: a holder of a block holds those before it too, so an idle block
    /// has none but idle blocks after it.
    pub fn idle(&self) -> usize {
        self.nodes.values().filter(|node| node.is_idle()).count()
    }

    /// Blocks in the tree, those that sequences hold too among them.
    pub fn blocks(&self) -> usize {
        self.nodes.len() - self.roots.len()
    }

    /// Forgets everything: after a panic nothing that the model wrote is trusted.
    pub fn clear(&mut self) {
        (self.nodes, self.roots, self.leaves) = Default::default();
    }

    fn add(&mut self, block: Option<Block>, tokens: Rc<[u32]>, parent: Option<NodeId>) -> NodeId {
        self.clock += 1;
        self.last_id += 1;
        let id = NodeId(self.last_id);
        self.nodes.insert(id, Node { block, tokens, parent, children: HashMap::new(), used: self.clock });
        id
    }

    fn touch(&mut self, id: NodeId) {
        self.clock += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            if self.leaves.remove(&(node.used, id)) {
                self.leaves.insert((self.clock, id));
            }
            node.used = self.clock;
        }
    }
}

impl Node {
    /// The tree alone holds its block.
    fn is_idle(&self) -> bool {
        self.block.as_ref().is_some_and(|block| !block.is_shared())
    }
}
