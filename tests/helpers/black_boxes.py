"""Physical systems in plain numpy, with everything known in closed form."""

import numpy as np

from substrates import Status
from substrates.laboratory.system import Reading, Spec, Terminals, checked_input, checked_knobs, checked_nudge


class BlackBox:
    """The three verbs that only set something."""

    def set_knobs(self, u):
        self.u = checked_knobs(self.spec, u)

    def clamp(self, x):
        self.x = checked_input(self.spec, x)

    def nudge(self, target, beta):
        self.y, self.beta = checked_nudge(self.spec, target, beta)


class SpringScale(BlackBox):
    """One mass on a spring that hangs from a lever: E = k/2 (s - theta.x)^2 + c.theta, jointly convex in (theta, s).

    With springs on the knobs, U = |u - theta|^2/2, and C = |s - y|^2/2 all of it is linear.
    """

    def __init__(self, theta, k=1.0, epsilon=0.1, pull=0.0, knob_range=(-np.inf, np.inf)):
        self.theta = np.array(theta, float)
        self.k, self.epsilon = float(k), float(epsilon)
        self.pull = np.broadcast_to(np.asarray(pull, float), self.theta.shape)
        n = self.theta.size
        self.spec = Spec(Terminals(n, "", *knob_range), Terminals(n), Terminals(n), Terminals(1))
        self.u, self.x, self.y, self.beta, self.s = self.theta.copy(), np.zeros(n), np.zeros(1), 0.0, 0.0
        self.settled = 0

    def settle(self):
        self.settled += 1
        # the state in terms of the parameters, then a rank-one system for the parameters
        stiffness = self.k * self.beta / (self.k + self.beta)
        matrix = np.eye(self.theta.size) / self.epsilon + stiffness * np.outer(self.x, self.x)
        right = self.u / self.epsilon + stiffness * self.y[0] * self.x - self.pull
        self.theta = np.linalg.solve(matrix, right)
        self.s = (self.k * self.theta @ self.x + self.beta * self.y[0]) / (self.k + self.beta)
        return Status.converged

    def read(self):
        return Reading(np.array([self.s]), self.theta.copy(), self.u.copy())

    def force_on_parameters(self, theta, x, y, beta):
        """dE/dtheta at the state that beta leaves."""
        return -self.k * beta / (self.k + beta) * (y - theta @ x) * x + self.pull

    def surrogate(self, theta, x, y, first, second):
        """The mean of the cost over nudges from `first` to `second`."""
        least = lambda beta: 0.5 * self.k * beta / (self.k + beta) * (theta @ x - y) ** 2
        return (least(second) - least(first)) / (second - first)


class LinearSystem(BlackBox):
    """Parameters and states on springs: at rest (H + D/epsilon + beta O) z = (u/epsilon, B x + beta y), z = (theta, s).

    H is the second derivative of an energy if it is symmetric; D picks the parameters, O the outputs, the last states.
    With a sign of -1 the nudge pushes the wrong way.
    """

    def __init__(self, H, drive, n_knobs, n_outputs, epsilon, sign=1.0, knob_range=(-np.inf, np.inf)):
        self.H, self.drive, self.epsilon, self.sign = H, drive, np.broadcast_to(epsilon, (n_knobs,)), sign
        self.n_knobs, self.n_outputs = n_knobs, n_outputs
        terminals = Terminals(n_knobs, "", *knob_range), Terminals(n_knobs)
        self.spec = Spec(*terminals, Terminals(drive.shape[1]), Terminals(n_outputs))
        self.u, self.x, self.y, self.beta = np.ones(n_knobs), np.zeros(drive.shape[1]), np.zeros(n_outputs), 0.0
        self.settled = 0
        self.settle()

    def settle(self):
        self.settled += 1
        self.z = np.linalg.solve(self.stiffness(self.beta), self.right())
        return Status.converged

    def read(self):
        return Reading(self.z[-self.n_outputs :].copy(), self.z[: self.n_knobs].copy(), self.u.copy())

    @classmethod
    def drawn(cls, seed=0, n_knobs=6, epsilon=0.2, twist=0.0, **options):
        """Four states, three inputs, two outputs; `twist` scales an antisymmetric part, which has no energy."""
        draw = np.random.default_rng(seed)
        size = n_knobs + 4
        root, turn, drive = draw.normal(size=(size, size)), draw.normal(size=(size, size)), draw.normal(size=(4, 3))
        H = root @ root.T / size + np.eye(size) / 2 + twist * (turn - turn.T) / 2
        return cls(H, drive, n_knobs, 2, epsilon, **options)

    def stiffness(self, beta):
        """H + D/epsilon + beta O."""
        matrix = self.H.copy()
        knobs, outputs = np.arange(self.n_knobs), len(matrix) - 1 - np.arange(self.n_outputs)
        matrix[knobs, knobs] += 1 / self.epsilon
        matrix[outputs, outputs] += self.sign * beta
        return matrix

    def right(self):
        right = np.concatenate([self.u / self.epsilon, self.drive @ self.x])
        right[-self.n_outputs :] += self.sign * self.beta * self.y
        return right
