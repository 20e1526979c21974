use proptest::collection::vec;
use proptest::prelude::*;

use super::picture::{Histogram, sampled_rows};
use super::*;

fn one(values: &[f64]) -> Summary {
    Summary::of_runs(Form::Vector, values.len() as u64, &[runs(values.iter().copied())])
}

fn merged(episodes: &[Vec<f64>]) -> Summary {
    let mut running = Running::new(Form::Vector, 1);
    for episode in episodes {
        running.add(episode.len() as u64, &[runs(episode.iter().copied())]);
    }
    running.summary()
}

/// numpy 2.2: `np.quantile([1, 2, 3, 10], [.01, .1, .5, .9, .99])`, `np.std`.
#[test]
fn an_episode_has_the_numbers_of_numpy() {
    let summary = one(&[10.0, 1.0, 3.0, 2.0]);
    assert_eq!((summary.min[0], summary.max[0], summary.mean[0], summary.count), (1.0, 10.0, 4.0, 4));
    assert!((summary.std[0] - 3.535_533_905_932_737_6).abs() < 1e-12);
    for (got, expected) in summary.quantiles.iter().zip([1.03, 1.3, 2.5, 7.9, 9.79]) {
        assert!((got[0] - expected).abs() < 1e-12, "{got:?} {expected}");
    }
}

#[test]
fn one_row_has_no_deviation_and_its_quantiles_are_the_value() {
    for value in [0.0, -3.5, 1e300, f64::MAX, f64::MIN_POSITIVE, 5e-324] {
        for summary in [one(&[value]), merged(&[vec![value]])] {
            assert_eq!((summary.mean[0], summary.std[0]), (value, 0.0));
            assert!(summary.quantiles.iter().all(|list| list[0] == value), "{value}: {:?}", summary.quantiles);
        }
    }
}

#[test]
fn values_that_are_no_numbers_are_left_out() {
    let summary = one(&[f64::NAN, 1.0, f64::INFINITY, 3.0, f64::NEG_INFINITY]);
    assert_eq!((summary.min[0], summary.max[0], summary.mean[0]), (1.0, 3.0, 2.0));
    let summary = one(&[f64::NAN]);
    assert_eq!((summary.min[0], summary.mean[0], summary.quantiles[2][0]), (0.0, 0.0, 0.0));
}

#[test]
fn the_largest_numbers_give_json_that_can_be_read() {
    let summary = merged(&[vec![f64::MAX, f64::MIN], vec![f64::MAX, 0.0]]);
    let text = serde_json::to_string(&summary.to_json(&NAMES)).unwrap();
    assert!(!text.contains("null"), "{text}");
}

/// Two episodes that do not overlap: the mean of the episodes' quantiles would be 10 for q01.
#[test]
fn quantiles_of_a_dataset_are_those_of_all_its_rows() {
    let (low, high): (Vec<f64>, Vec<f64>) =
        ((0..1000).map(f64::from).collect(), (20_000..21_000).map(f64::from).collect());
    let summary = merged(&[low, high]);
    let tolerance = 21_000.0 / 4096.0;
    for (list, expected) in summary.quantiles.iter().zip([19.99, 199.9, 999.0, 20_799.1, 20_979.01]) {
        assert!((list[0] - expected).abs() <= tolerance, "{} {expected}", list[0]);
    }
}

#[test]
fn frames_are_sampled_as_lerobot_samples_them() {
    assert_eq!(sampled_rows(1), [0]);
    assert_eq!(sampled_rows(100), (0..100).collect::<Vec<u32>>());
    let rows = sampled_rows(300);
    assert_eq!((rows.len(), rows[0], rows[1], rows[2], rows[99]), (100, 0, 3, 6, 299));
    assert_eq!(sampled_rows(10_000).len(), 1000);
    assert_eq!(sampled_rows(1_000_000).len(), 10_000);
}

#[test]
fn a_large_picture_counts_every_fourth_pixel() {
    let mut histogram = Histogram::default();
    histogram.add_rgb(640, 480, &vec![51; 640 * 480 * 3]);
    assert_eq!(histogram.frames(), 1);
    assert_eq!(histogram.runs()[0], [(0.2, 19_200)]);
    let mut small = Histogram::default();
    small.add_rgb(2, 2, &[0, 1, 2, 0, 1, 2, 0, 1, 2, 255, 1, 2]);
    assert_eq!(small.runs()[0], [(0.0, 3), (1.0, 1)]);
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        -1e3f64..1e3,
        any::<f32>().prop_map(f64::from).prop_filter("finite", |value| value.is_finite()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        (-5i64..5).prop_map(|value| value as f64),
        (1_700_000_000_000_000_000i64..1_700_000_001_000_000_000).prop_map(|value| value as f64),
    ]
}

proptest! {
    /// However rows are spread over episodes and in whatever order these come, the dataset's numbers
    /// are those of all rows: extremes exactly, the rest within rounding, quantiles within one bin.
    #[test]
    fn merging_episodes_equals_looking_at_all_rows(episodes in vec(vec(any_value(), 1..50), 1..8)) {
        let all: Vec<f64> = episodes.iter().flatten().copied().collect();
        let (exact, forward) = (one(&all), merged(&episodes));
        let reversed: Vec<Vec<f64>> = episodes.iter().rev().cloned().collect();
        let backward = merged(&reversed);
        prop_assert_eq!(&forward.quantiles, &backward.quantiles);
        prop_assert_eq!((&forward.min, &forward.max, forward.count), (&exact.min, &exact.max, exact.count));
        let range = exact.max[0] / 2.0 - exact.min[0] / 2.0;
        let scale = exact.max[0].abs().max(exact.min[0].abs());
        let close = |a: f64, b: f64, bound: f64| (a / 2.0 - b / 2.0).abs() <= bound;
        prop_assert!(close(forward.mean[0], exact.mean[0], range * 1e-9 + scale * 1e-14), "{} {}", forward.mean[0], exact.mean[0]);
        if scale < 1e150 {
            prop_assert!(close(forward.std[0], exact.std[0], range * 1e-6 + scale * 1e-13), "{} {}", forward.std[0], exact.std[0]);
        }
        let mut sorted = all.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        for (list, quantile) in forward.quantiles.iter().zip(QUANTILES) {
            // Between two far values any point is a fair quantile: the true ranks around it bound it.
            let rank = quantile * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
            let slack = range / 2048.0 + scale * 1e-15;
            prop_assert!(list[0] / 2.0 >= low / 2.0 - slack && list[0] / 2.0 <= high / 2.0 + slack, "{} in {low} to {high}", list[0]);
        }
    }

    /// What is kept between two appends gives the same statistics as never having stopped.
    #[test]
    fn a_running_statistic_survives_its_file(episodes in vec(vec(any_value(), 1..20), 1..4)) {
        let mut running = Running::new(Form::Vector, 1);
        for episode in &episodes {
            running.add(episode.len() as u64, &[runs(episode.iter().copied())]);
            let text = serde_json::to_string(&running).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Running>(&text).unwrap(), &running);
        }
    }
}
