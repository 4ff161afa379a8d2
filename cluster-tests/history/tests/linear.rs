//! Histories made by hand, good and bad: each bad one is a lie that the search must not believe.

mod make;

use holdfast_history::{Answer, Call, Error, Op, Outcome, Rule, STEPS_MAX, check_key, check_keys};
use make::{by, create, delete, found, get, lost, set, set_if, unknown, value, written};

fn check(calls: &[Call]) -> Result<u64, Error> {
    let calls: Vec<&Call> = calls.iter().collect();
    check_key(&calls, STEPS_MAX)
}

#[track_caller]
fn good(calls: &[Call]) {
    check(calls).expect("it is linearizable");
}

#[track_caller]
fn bad(calls: &[Call]) {
    let error = check(calls).expect_err("it is not linearizable");
    assert_eq!(error.rule(), Some(Rule::Linearizable), "{error}");
}

// G2
#[test]
fn read_sees_what_was_acknowledged_before_it() {
    let set = set("a", (0, 10), written(5));
    good(&[set.clone(), get((11, 20), found("a", 5, 5))]);
    bad(&[set.clone(), get((11, 20), Answer::Absent)]);
    // They overlap: either way.
    good(&[set.clone(), get((10, 20), Answer::Absent)]);
    good(&[set.clone(), get((5, 7), found("a", 5, 5))]);
    // Nobody wrote that.
    bad(&[set, get((11, 20), found("b", 5, 5))]);
}

// G2: a follower that lags behind.
#[test]
fn stale_read_is_caught() {
    let writes = [set("a", (0, 10), written(5)), set("b", (20, 30), written(6))];
    let read = |times, answer| [writes.to_vec(), vec![get(times, answer)]].concat();
    good(&read((25, 40), found("a", 5, 5)));
    bad(&read((31, 40), found("a", 5, 5)));
    // One that saw the new value, then one that did not.
    let mut both = read((21, 22), found("b", 6, 6));
    both.push(get((23, 24), found("a", 5, 5)));
    bad(&both);
}

// G1
#[test]
fn lost_write_is_caught() {
    let calls = [
        set("a", (0, 10), written(5)),
        set("b", (20, 30), written(6)),
        get((40, 50), found("a", 5, 9)),
    ];
    bad(&calls);
}

// G4 G5
#[test]
fn call_without_an_answer_takes_effect_once_at_any_later_moment_or_never() {
    let begin = [set("a", (0, 10), written(5)), unknown(by(2, set("b", (20, 0), written(0))))];
    let then = |calls: &[Call]| [begin.to_vec(), calls.to_vec()].concat();
    let sees_a = |from| get((from, from + 5), found("a", 5, 5));
    let sees_b = |from| get((from, from + 5), found("b", 9, 9));
    good(&then(&[sees_a(30), sees_a(1000)]));
    good(&then(&[sees_a(30), sees_b(1000)]));
    bad(&then(&[sees_b(1000), sees_a(2000)]));
    // Not before it began.
    bad(&[vec![sees_b(12)], begin.to_vec()].concat());
    // Not twice.
    let again = [sees_b(30), set("c", (40, 50), written(12)), get((60, 70), found("b", 13, 13))];
    bad(&then(&again));
    // A second one like it can.
    let second = unknown(by(3, set("b", (20, 0), written(0))));
    good(&[then(&again), vec![second]].concat());
}

// G5
#[test]
fn call_that_was_not_applied_has_no_effect() {
    let mut refused = set("b", (20, 30), written(0));
    refused.outcome = Outcome::NotApplied;
    let calls = [set("a", (0, 10), written(5)), refused];
    good(&[calls.to_vec(), vec![get((40, 50), found("a", 5, 5))]].concat());
    bad(&[calls.to_vec(), vec![get((40, 50), found("b", 9, 9))]].concat());
}

// S4
#[test]
fn one_create_wins_and_all_get_its_value() {
    let win = create("a", (0, 10), written(5));
    let lose = by(2, create("b", (0, 10), lost("a", 5, 6)));
    good(&[win.clone(), lose.clone()]);
    bad(&[win.clone(), by(2, create("b", (0, 10), written(6)))]);
    bad(&[win.clone(), by(2, create("b", (0, 10), lost("b", 6, 6)))]);
    bad(&[win.clone(), by(2, create("b", (0, 10), lost("a", 4, 6)))]);
    bad(std::slice::from_ref(&lose));
    // Deleted in between.
    let calls = [win, delete((0, 10), true), by(2, create("b", (0, 10), written(6)))];
    good(&calls);
    good(&[unknown(create("a", (0, 0), written(0))), lose]);
}

// S3
#[test]
fn set_loses_to_a_racing_write_of_another_session_only() {
    let first = set("a", (0, 20), written(5));
    good(&[first.clone(), by(2, set("b", (10, 30), lost("a", 5, 5)))]);
    // The winner was acknowledged before the loser began.
    bad(&[first.clone(), by(2, set("b", (21, 30), lost("a", 5, 5)))]);
    // Of the same session.
    bad(&[first.clone(), set("b", (10, 30), lost("a", 5, 5))]);
    // To a value of its own, with another session's write in between.
    let other = by(2, set("b", (5, 15), written(4)));
    good(&[other, first.clone(), set("c", (6, 30), lost("a", 5, 5))]);
    // To one that nobody answered.
    let open = unknown(by(3, set("z", (1, 0), written(0))));
    good(&[first, open, by(2, set("b", (21, 30), lost("z", 6, 6)))]);
}

// S3
#[test]
fn same_value_again_keeps_its_revision() {
    let first = set("a", (0, 10), written(5));
    let again = Answer::Written { mod_revision: 5, revision: 8 };
    good(&[first.clone(), by(2, set("a", (20, 30), again))]);
    bad(&[first.clone(), by(2, set("a", (20, 30), written(8)))]);
    let older = Answer::Written { mod_revision: 4, revision: 8 };
    bad(&[first, by(2, set("a", (20, 30), older))]);
}

// S3
#[test]
fn comparison_is_with_the_revision_that_stands() {
    let first = set("a", (0, 10), written(5));
    good(&[first.clone(), set_if("b", 5, (20, 30), written(6))]);
    bad(&[first.clone(), set_if("b", 4, (20, 30), written(6))]);
    good(&[first.clone(), set_if("b", 4, (20, 30), lost("a", 5, 7))]);
    bad(&[first.clone(), set_if("b", 5, (20, 30), lost("a", 5, 7))]);
    bad(&[first.clone(), set_if("b", 0, (20, 30), written(6))]);
    good(&[set_if("b", 0, (0, 10), written(5))]);
    let absent = Answer::Lost { held: None, revision: 7 };
    good(&[first.clone(), delete((20, 30), true), set_if("b", 5, (40, 50), absent.clone())]);
    bad(&[first.clone(), set_if("b", 4, (40, 50), absent)]);
    // Two with one comparison: one of them wins.
    let two = [set_if("b", 5, (20, 30), written(6)), by(2, set_if("c", 5, (20, 30), written(7)))];
    bad(&[vec![first], two.to_vec()].concat());
}

// S6
#[test]
fn delete_says_whether_there_was_a_value() {
    let first = set("a", (0, 10), written(5));
    good(&[first.clone(), delete((20, 30), true), get((40, 50), Answer::Absent)]);
    bad(&[first.clone(), delete((20, 30), false)]);
    bad(&[first.clone(), delete((20, 30), true), delete((40, 50), true)]);
    let open = unknown(delete((20, 0), true));
    good(&[first.clone(), open.clone(), get((40, 50), Answer::Absent)]);
    good(&[first.clone(), open.clone(), delete((40, 50), false)]);
    // An open delete, then an open create: both are needed.
    let created = unknown(by(2, create("b", (20, 0), written(0))));
    good(&[first, open, created, get((40, 50), found("b", 9, 9))]);
}

// G6
#[test]
fn revisions_do_not_fall_along_the_order() {
    let first = set("a", (0, 10), written(5));
    bad(&[first.clone(), get((11, 20), found("a", 5, 9)), get((21, 30), found("a", 5, 8))]);
    bad(&[first.clone(), get((11, 20), found("a", 5, 9)), set("b", (21, 30), written(8))]);
    bad(&[first, get((11, 20), found("a", 5, 4))]);
}

/// Each read needs one of the calls without an answer, and the right one.
fn many_unanswered(count: u64, read: impl Fn(u64) -> u64) -> Vec<Call> {
    let client = |nth: u64| usize::try_from(nth).expect("they are few");
    let mut calls: Vec<Call> = (0..count)
        .map(|nth| unknown(by(client(nth), set(&format!("v{nth}"), (nth, 0), written(0)))))
        .collect();
    for nth in 0..count {
        let from = 10_000 + nth * 10;
        let revision = 100 + nth;
        calls.push(get((from, from + 5), found(&format!("v{}", read(nth)), revision, revision)));
    }
    calls
}

#[test]
fn hundreds_of_calls_without_an_answer_stay_cheap() {
    let scattered = |nth| nth * 7 % 300;
    let steps = check(&many_unanswered(300, scattered)).expect("each value is read once");
    assert!(steps < 200_000, "{steps} steps");
    // One value is read twice, with others in between.
    bad(&many_unanswered(300, |nth| if nth == 299 { 0 } else { scattered(nth) }));
}

#[test]
fn budget_that_is_one_step_short_leaves_it_undecided() {
    let calls = many_unanswered(20, |nth| 19 - nth);
    let calls: Vec<&Call> = calls.iter().collect();
    let steps = check_key(&calls, STEPS_MAX).expect("it is linearizable");
    assert_eq!(check_key(&calls, steps), Ok(steps));
    let error = check_key(&calls, steps - 1).expect_err("it takes one more");
    assert!(
        matches!(error, Error::Undecided { steps: taken, .. } if taken == steps - 1),
        "{error}"
    );
    assert_eq!(error.rule(), None);
}

#[test]
fn keys_are_checked_apart() {
    let other = |call: Call| Call { key: "other".into(), ..call };
    let first = set("a", (0, 10), written(5));
    let calls = [first.clone(), other(get((20, 30), Answer::Absent))];
    check_keys(&calls, STEPS_MAX).expect("the other key is absent");
    let calls = [first, other(get((20, 30), found("a", 5, 5)))];
    let error = check_keys(&calls, STEPS_MAX).expect_err("the other key was never written");
    assert!(error.to_string().contains("other"), "{error}");
}

#[test]
fn what_was_asked_and_what_was_answered_belong_together() {
    bad(&[get((0, 10), Answer::Deleted(false))]);
    bad(&[delete((0, 10), false), set("a", (11, 20), Answer::Absent)]);
    bad(&[Call { op: Op::Delete, ..set("a", (0, 10), written(5)) }]);
    assert_eq!(value("a").len(), 1);
}
