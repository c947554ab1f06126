"""Physical systems in plain numpy, with everything known in closed form."""

import numpy as np

from substrates import Status
from substrates.laboratory.system import Reading, Spec, Terminals, checked_input, checked_knobs, checked_nudge


class SpringScale:
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

    def set_knobs(self, u):
        self.u = checked_knobs(self.spec, u)

    def clamp(self, x):
        self.x = checked_input(self.spec, x)

    def nudge(self, target, beta):
        self.y, self.beta = checked_nudge(self.spec, target, beta)

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
