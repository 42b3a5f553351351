//! What is measured of several systems in alternating rounds, and how it is told: medians of the rounds beside
//! each other, with the ratio to the best peer.

use crate::median;

/// Nobody's peer: what the machine reaches without any system.
pub const YARDSTICK: &str = "echo";
/// The same, with as many syncs as durable agreement takes.
pub const YARDSTICK_SYNCED: &str = "echo, synced";

/// What is measured.
pub struct Measure {
    /// How it is asked for.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    /// What a round of it gives.
    pub figures: &'static [Figure],
}

/// One of the figures of a round.
pub struct Figure {
    /// What it is, with its unit.
    pub name: &'static str,
    /// How many digits of it are told, after the point.
    pub digits: usize,
    /// Whether it had better be great.
    pub more_is_better: bool,
    /// How Wombat's median is to stand to that of its best peer, if that is a goal.
    pub ratio: Option<f64>,
    /// What it is to be, in words.
    pub goal: &'static str,
}

/// The figures of all rounds, by the systems' names in the order of their first turns. The first is Wombat; others
/// of that name are none of its peers.
#[derive(Default)]
pub struct Results(Vec<(String, Vec<Vec<f64>>)>);

impl Results {
    /// Adds what a system reached in a round.
    pub fn add(&mut self, name: &str, round: &[f64]) {
        let place = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((name.into(), vec![Vec::new(); round.len()]));
            self.0.len() - 1
        });
        self.0[place].1.iter_mut().zip(round).for_each(|(all, one)| all.push(*one));
    }

    /// Tells them.
    pub fn print(&self, measure: &Measure) {
        println!("{}", measure.what);
        for (place, figure) in measure.figures.iter().enumerate() {
            println!("  {:28}{:>10}{:>10}{:>10}   {}", figure.name, "median", "least", "most", figure.goal);
            for (name, figures) in &self.0 {
                let mut all = figures[place].clone();
                all.sort_by(f64::total_cmp);
                let (least, most) = (all[0], all[all.len() - 1]);
                let digits = figure.digits;
                println!("    {name:26}{:>10.digits$}{least:>10.digits$}{most:>10.digits$}", median(all));
            }
            self.print_ratio(place, figure);
        }
    }

    fn print_ratio(&self, place: usize, figure: &Figure) {
        let of = |(_, figures): &(String, Vec<Vec<f64>>)| median(figures[place].clone());
        let peers =
            self.0.iter().filter(|(name, _)| !name.starts_with(YARDSTICK) && !name.starts_with("wombat"));
        let better = |one: f64, other| if figure.more_is_better { one.max(other) } else { one.min(other) };
        let (Some(own), Some(best)) = (self.0.first().map(of), peers.map(of).reduce(better)) else { return };
        let sign = if figure.more_is_better { '≥' } else { '≤' };
        let goal = figure.ratio.map_or(String::new(), |goal| format!("(goal {sign} {goal})"));
        let digits = if own / best < 0.1 { 4 } else { 2 };
        println!("    {:26}{:>10.digits$}   {goal}", "wombat to the best peer", own / best);
    }
}
