"""verdicts.py - what may be said of a difference between two programs' times.

A program that is linked in another order does the same at another speed: its loops lie elsewhere in the
cache's lines and in the predictors' tables (Mytkowicz et al., Producing Wrong Data Without Doing Anything
Obviously Wrong!, ASPLOS 2009). So a difference between RMSNorm's program and LayerNorm's is told as the
norm's only where
  - it is there at all: a bootstrap-t over rounds (Efron & Tibshirani 1993, section 12.5; with trimmed means:
    Wilcox 2012), corrected by Holm (1979) for how many differences a report looks at,
  - it is larger than those between RMSNorm's program and itself, linked in other orders, and
  - it is no larger than the time that the norms take: what cannot save more cannot cost more.

Every number here is a logarithm of a ratio of times, until it is told in per cent. Whatever is measured comes
as an argument: nothing here runs a program.
"""

from functools import lru_cache

import numpy as np

ALPHA = 0.05                # so often a whole report sees at least one difference where there is none
MARGIN = 1.0                # per cent: an interval that reaches further does not tell that nothing differs
TRIM, RESAMPLES = 0.2, 1999


def percent(log):
    return float(100 * np.expm1(log))


# ---------------------------------------------------------------------------- one difference


def trimmed(x):
    """The mean of the middle, and its standard error from the winsorized variance (Yuen 1974); by row."""
    x = np.sort(x, axis=-1)
    n = x.shape[-1]
    cut = int(TRIM * n)
    held = np.clip(x, x[..., cut, None], x[..., n - cut - 1, None])
    return x[..., cut:n - cut].mean(-1), held.std(-1, ddof=1) / np.sqrt(n) / (1 - 2 * cut / n)


class Estimate:
    """Of what the differences of the rounds scatter around."""

    def __init__(self, differences, seed=1):
        x = np.asarray(differences, float)
        self.value, self.error = trimmed(x)
        means, errors = trimmed(np.random.default_rng(seed).choice(x, (RESAMPLES, len(x))))
        # A resample of equal numbers has no error to count in.
        there = errors > 1e-6 * self.error + 1e-15
        self.distances = np.sort(np.divide(abs(means - self.value), errors, np.zeros(RESAMPLES), where=there))

    def p(self):
        """How often resamples are as far from the estimate as the estimate is from zero."""
        distance = abs(self.value) / max(self.error, 1e-15)
        return float(1 + np.count_nonzero(self.distances >= distance)) / (RESAMPLES + 1)

    def interval(self, alpha):
        """(low, high) without zero where, and only where, p() <= alpha."""
        place = min(int(np.ceil((1 - alpha) * (RESAMPLES + 1))), RESAMPLES) - 1
        reach = self.distances[place] * self.error
        return self.value - reach, self.value + reach


def holm(p, alpha=ALPHA):
    """Of each p: adjusted for all of them, and the level that Holm's procedure compares it with.

    The smallest of m is compared with alpha / m, the next one with alpha / (m - 1), and so on; from the first
    one that fails, the level stays."""
    p = np.asarray(p, float)
    order, steps = np.argsort(p, kind="stable"), np.arange(len(p), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(p[order] * steps))
    failed = p[order] > alpha / steps
    first = np.argmax(failed) if failed.any() else len(p) - 1
    back = np.argsort(order)
    return adjusted[back], (alpha / np.maximum(steps, steps[first]))[back]


# ---------------------------------------------------------------------------- the control


@lru_cache
def student(freedom, alpha):
    """So far from 0 lies no more than alpha of Student's t, either side; by drawing it."""
    return np.quantile(abs(np.random.default_rng(1).standard_t(freedom, 400_000)), 1 - alpha)


def relinking(orders, alpha):
    """orders: how RMSNorm's program differs from itself, linked in each of some other orders. Where would one
    more of them lie? (A prediction interval: what was measured badly widens it.)"""
    orders = np.asarray(orders, float)
    mean, spread = orders.mean(), orders.std(ddof=1)
    reach = student(len(orders) - 1, alpha) * spread * np.sqrt(1 + 1 / len(orders))
    low, high = percent(mean - reach), percent(mean + reach)
    return {"value": percent(mean), "low": low, "high": high, "reach": max(abs(low), abs(high)),
            "spread": 100 * float(spread), "orders": [percent(x) for x in orders]}


# ---------------------------------------------------------------------------- the verdicts


def cause(value, bound, control):
    """What a difference that is there is told as. All in per cent."""
    if abs(value) <= control["reach"]:
        return "placement"
    return "norm" if abs(value) <= bound else "program"


def verdict(estimate, p, adjusted, level, bound, control):
    value, (low, high) = percent(estimate.value), map(percent, estimate.interval(level))
    beyond = max(abs(low), abs(high))
    found = {"value": value, "low": low, "high": high, "p": p, "holm": float(adjusted), "bound": bound,
             "beyond": beyond, "told_as": None}
    if control is None:
        return found | {"verdict": "not resolved"}
    if adjusted <= ALPHA:
        return found | {"verdict": "differs", "told_as": cause(value, bound, control)}
    return found | {"verdict": "no difference" if beyond <= MARGIN else "not resolved"}


def judge(comparisons):
    """All comparisons of a report, as one family: [(differences, bound, orders)] -> [(verdict, control)].

    differences: by round, the logarithm of how many times as long as RMSNorm's program the other one takes;
    bound: per cent of a token's time that the norms take, at most;
    orders: the same logarithm for each relinked program, or nothing where there are none."""
    estimates = [Estimate(differences) for differences, _, _ in comparisons]
    p = [estimate.p() for estimate in estimates]
    controls = [relinking(orders, ALPHA / len(comparisons)) if len(orders) > 1 else None
                for _, _, orders in comparisons]
    return [(verdict(estimate, *tested, bound, control), control)
            for estimate, *tested, (_, bound, _), control
            in zip(estimates, p, *holm(p), comparisons, controls)]


# ---------------------------------------------------------------------------- in words


def signed(x):
    return f"{x:+.2f}".replace("-", "−").replace("+0.00", "0.00").replace("−0.00", "0.00")


def more(x):
    return f"{abs(x):.2f} % {'more' if x > 0 else 'less'} time"


def sentence(program, whole, control):
    """What the comparison of whole programs says. program: "LayerNorm's program", say."""
    if whole["verdict"] == "no difference":
        return f"{program} and RMSNorm's differ by no more than {whole['beyond']:.2f} %."
    if whole["verdict"] == "not resolved":
        within = f"{signed(whole['low'])} to {signed(whole['high'])} %"
        return f"{program} beside RMSNorm's: not resolved (" + (
            f"{within} is all that is known)." if control else
            f"{within}, all of which may be placement of code: no relinked programs are there to compare).")
    start = f"{program} takes {more(whole['value'])} than RMSNorm's"
    if whole["told_as"] == "norm":
        return f"{start}, within the {whole['bound']:.2f} % that norms take."
    relinked = f"the {control['reach']:.2f} % by which RMSNorm's own may change when linked in another order"
    if whole["told_as"] == "placement":
        return f"{start}, within {relinked}: placement of code (or load), not the norm."
    return f"{start}, beyond the {whole['bound']:.2f} % that norms take and beyond {relinked}: something " \
           "else differs between the programs, or the load was uneven."
