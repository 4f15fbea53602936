//! Which variants no other beats at once in cost and in quality.

use super::metric::Better;

/// Whether each (cost, quality) is on the front: no other costs at most as much, is at least as good, and is ahead in
/// one of both. Points without numbers are on none.
pub fn front(points: &[Option<(f64, f64)>], better: Better) -> Vec<bool> {
    let sound = |point: &Option<(f64, f64)>| point.filter(|(cost, quality)| cost.is_finite() && quality.is_finite());
    let beats = |(cost, quality): (f64, f64), (c, q): (f64, f64)| {
        let (gain, loss) = (better.is_gain(quality - q), better.is_gain(q - quality));
        cost <= c && !loss && (cost < c || gain)
    };
    let dominated = |point| points.iter().filter_map(sound).any(|other| beats(other, point));
    points.iter().map(|point| sound(point).is_some_and(|point| !dominated(point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_beats() {
        let points =
            [Some((1.0, 0.5)), Some((2.0, 0.4)), Some((3.0, 0.9)), Some((1.0, 0.5)), None, Some((0.5, f64::NAN))];
        assert_eq!(front(&points, Better::Higher), [true, false, true, true, false, false]);
        assert_eq!(front(&points, Better::Lower), [true, true, false, true, false, false]);
    }
}
