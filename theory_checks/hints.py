"""Where to look for what breaks a law."""

from __future__ import annotations

import dataclasses

from theory_checks.report import Law

HINTS = {
    "gradients fit the parameters": (
        "measure and contrast return a tree like the substrate: the shapes of its trainable arrays, None for "
        "fields marked fixed(). Leave both to the contract, and compare."
    ),
    "relaxations converge": (
        "Print `relax(x).status`: it says how a relaxation ended. More steps, a start nearer to equilibrium, a "
        "weaker nudge (`beta=`), or a solver of another kind."
    ),
    "free stationarity": (
        "`relax` returns what is no equilibrium of `energy` (or `force`) at this x. Solve further, or judge "
        "convergence by the force at every variable beside the forces that meet there; if it does, it balances "
        "other forces than the energy's: compare them, and see whether it uses x."
    ),
    "nudged stationarity": (
        "`relax` does not settle under the nudge that it is given: does it use nudge.pull with its sign, its "
        "target and its beta, at the outputs that `read` shows, and solve as far as without a nudge?"
    ),
    "residual measures equilibrium": (
        "Your `residual` is smaller than what energy, bounds and reading say is left over: a norm over too few "
        "variables, a step instead of a force, or a division by something large. Leave it to the contract."
    ),
    "reported energy = F(state)": (
        "The energy of an Equilibrium is `total_energy(state, x, nudge)` at its own state: with the nudge, after "
        "the last step."
    ),
    "force = -dE/dstate": (
        "Your `force` is not minus the derivative of your `energy`. Write E down for two variables and "
        "differentiate it by hand; a sign, a factor 1/2 and a pair counted twice are what usually differs. A force "
        "that no energy has wants a class without `energy`."
    ),
    "force = -dE/dstate, by differences": (
        "Differences of the energy disagree with the force: see the law above; if that holds, the energy has a "
        "custom derivative, a stop_gradient, or a kink at these states."
    ),
    "measure = dF/dtheta": (
        "Your `measure` is not the mean over the batch of dF/dtheta at fixed states. Write E down for two "
        "variables and differentiate it by hand; a sign, a factor 1/2 and a pair counted twice, or a sum where a "
        "mean is wanted."
    ),
    "measure = dF/dtheta, by differences": (
        "Differences of F in the parameters disagree with `measure`: see the law above; if that holds, the energy "
        "hides a parameter from differentiation."
    ),
    "contrast = difference of measures": (
        "Between two states `contrast` is not measure(plus) - measure(minus): set contrast_points = 2 where "
        "dE/dtheta is more than quadratic in the state, 0 where states do not interpolate."
    ),
    "constrained() is a projection": (
        "constrained() applied twice changes parameters again: clip to the bound itself, not past it."
    ),
    "reciprocity of the force": (
        "dforce_i/dstate_j differs from dforce_j/dstate_i, so that no energy has this force: one-way couplings, W "
        "used where W + W' is meant. Symmetrise it, or drop `energy`."
    ),
    "reciprocity of the response": (
        "Outputs answer to nudges as those of no energy do: does `relax` settle all variables, and nudge the "
        "outputs that `read` shows?"
    ),
    "envelope: dFm/dbeta = C(s_beta)": (
        "The least total energy does not grow by C with beta: nudged states are no minima of E + beta C, or "
        "reported and real energies differ."
    ),
    "bounds: L(0,b) <= L <= L(-b,0)": (
        "Nudged energies lie where those of minima cannot: a nudge of the wrong sign, or phases that end in "
        "different basins; start nudged phases from the free state."
    ),
    "C(s_beta) never increases with beta": (
        "A stronger nudge makes the outputs worse: its sign is wrong, or phases end in different basins."
    ),
    "EP -> exact gradient": (
        "The contrast over beta does not tend to the gradient: if stationarity holds look at `measure` and "
        "`contrast` (sign, factor, batch mean), else at the solver."
    ),
    "EP -> vector-field formula": (
        "The contrast over beta does not tend to -(dforce/dtheta)' J^-1 dC/ds: look at `contrast`, and whether "
        "`relax` settles the force that `force` returns."
    ),
    "EP one-sided: error ~ beta": (
        "The error does not fall with beta: it is there at beta = 0 (a factor in `contrast` or `measure`), or the "
        "nudged phase leaves the branch of the free one."
    ),
    "EP centred: error ~ beta^2": (
        "Even terms do not cancel between +beta and -beta: nudges of either sign are treated differently, states "
        "switch (kinks, bounds), or contrast_points is too small."
    ),
    "EP less its bias = slope of the cost": (
        "The cost, measured, changes with the parameters otherwise than the estimate says: free phases depend on "
        "the parameters by another way than `energy` or `force`, such as a solver that uses other values, or they "
        "end in different basins."
    ),
    "EP = gradient of its surrogate": (
        "At finite beta the estimate is not the slope of (Fm(beta) - Fm(0))/beta: `measure` leaves out the nudge's "
        "own parameters, or states are not equilibria."
    ),
    "no slope, no update": (
        "A cost that is flat still moves parameters: free and nudged phases differ by more than the nudge (another "
        "start, another key, another tolerance)."
    ),
    "batch = singles: equilibria": (
        "An example settles otherwise in a batch: something is summed over the batch, or one stopping test serves "
        "all examples."
    ),
    "batch = singles: measurements": (
        "`measure` of a batch is not the mean of those of its examples: a sum, or a product between examples."
    ),
    "jit = eager": (
        "Compiled and eager relaxations differ: a Python `if` on values, numpy inside, or state kept between calls."
    ),
    "generic solver = own solver": (
        "From close by, a generic solver settles elsewhere: your solver ends at another stationary point, or "
        "solves other equations than `energy` says."
    ),
    "the same equilibrium in other units": (
        "Energies times a constant have the same equilibrium: replace an absolute tolerance or regulariser in the "
        "solver by one relative to the forces that meet."
    ),
    "one key, the same again": (
        "Two relaxations with one key differ: randomness that does not come from `key`, or memory of an earlier call."
    ),
    "precision of the parameters is kept": (
        "Something is cast: a constant made by numpy or `jnp.zeros(n)` without a dtype, or astype(float32) in a "
        "solver. Take the dtype from the parameters."
    ),
    "warm starts end at their own input": (
        "From a state of another input the relaxation claims to have converged and has not: it stops on small "
        "steps, or returns its start. Test the force at this x."
    ),
    "the input acts": (
        "Nothing changes with x: `energy`, `force`, `read` and `bounds` ignore it. Use x where the clamped nodes stand."
    ),
    "parameters are numbers": (
        "An array holds NaN, or a trainable one infinity: give it numbers, or leave the field out if nothing uses it. "
        "A constant may be infinite, in a field marked fixed()."
    ),
    "the state shows": (
        "Nothing that is read changes with the state, so that nudges move nothing and nothing is learned: read the "
        "variables of the output terminals, `state[-1:]`, say."
    ),
    "energy not above its start": (
        "A relaxation went uphill and ended there: Newton steps to a saddle or another basin, or steps that are "
        "too long. Descend first."
    ),
    "truncated phases": (
        "Stopped after a step, the solver reports a failure, or leaves a state from which it does not go on: "
        "return what is there, with Status.truncated."
    ),
    "holomorphic = said": (
        "Say holomorphic = False, or keep abs, conj, clip, max and comparisons out of energy, force and read."
    ),
    "EP on a circle of 4: error ~ beta^4": (
        "Complex nudges give an estimate of lower order: something in energy or `read` is not analytic (abs, real, "
        "conj), or the solver stops at the real part."
    ),
    "pins = said": (
        "Under a Pin the outputs are not at its target: hold them in `relax` and `stationarity`, or say pins = False."
    ),
    "discrete = said": (
        "Set discrete = True where no weak nudge moves a state, False where states move by any amount."
    ),
    "linear in parameters = said": (
        "What is measured changes with the parameters at the same states: dE/dtheta is not local to each. Say "
        "linear_in_parameters = False, or write E as a sum of theta_k times a function of the state."
    ),
    # of systems on the bench
    "readings": ("Look at what `read` returns: its shapes against the spec, NaN, a meter that is not connected."),
    "rest": ("Wait longer (`Patience`), or look for an oscillation."),
    "return of parameters": ("Knobs have play, stick or drift: approach values from one side, or take smaller steps."),
    "return of outputs": ("The state remembers: hysteresis, several minima, or too short a wait."),
    "knobs": (
        "A knob moves no parameter: a dead actuator, a wrong wire, or an order of knobs other than of parameters."
    ),
    "range": ("Give the knob a wider range, or keep its parameter further from the end."),
    "reciprocity of knobs": (
        "The answer of the parameters to the knobs is not that of an energy: give `compliance` if knobs are of "
        "unequal softness; else active elements act one way."
    ),
    "reciprocity of nudge and knobs": (
        "What a nudge does to the parameters is not what knobs do to the outputs: the nudge acts elsewhere than "
        "where outputs are read, or elements act one way."
    ),
    "pull": (
        "Under beta > 0 outputs should move to the target: check the sign of the nudge, and that it is connected."
    ),
    "opposite nudges": ("beta and -beta do not act alike: use a weaker nudge, or look for rectifiers at the outputs."),
    "yielding": (
        "No parameter moves under a nudge: knobs hold them too stiffly (raise epsilon), or the meter is too coarse."
    ),
    "clamp": ("Nothing changes with the clamped input: is the clamp connected, and does `clamp` act before `settle`?"),
    "reading": ("Reading disturbs the system, or it had not settled."),
    "no nudge": ("beta = 0 must remove the nudge: it leaves something behind."),
    "refusals": ("Arguments without sense must raise ValueError, and not be clipped, padded or passed on."),
    "kept": ("A refused call must change nothing: check all arguments before anything is set."),
    "holding": ("The knobs cannot hold a parameter: too little gain, too little range, or a dead knob."),
    "bias": ("The error of centred nudges falls too slowly: nudges are not proportional to beta, or a state switches."),
    "gradient": (
        "Parameters move otherwise than the cost's slope says: see reciprocity, the sign of the nudge, and the "
        "order of the parameters."
    ),
    "descent": (
        "The cost falls by another amount than the step promises: epsilon or `compliance` is not that of the knobs."
    ),
    "mean cost": ("The mean cost rises in a step: too strong a nudge, noise, or a system without an energy."),
}
"""For each law what usually breaks it."""


def hinted(law: Law) -> Law:
    """The law with a hint where it fails."""
    return dataclasses.replace(law, hint=HINTS[law.name]) if law.verdict == "fails" else law
