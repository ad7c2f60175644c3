"""What [Fog] prints of the efficiency of its four designs, beside what is right.

"Read" and "illegible" are said of the text that could be read. A remark is a line of at most 78
columns.
"""

from typing import Final

_COUNTS: Final = "M and N of [Fog] are g_1 and g_3"

# (composition, bottleneck): section of [Fog], remarks on its efficiency and on its greatest width.
REMARKS: Final = {
    ("DW+PW", False): (
        "3.3.1",
        "[Fog] has the same parameters and ratio",
        "the root of the greatest width, read '2 alpha + 40 P', is of 81 + 4*alpha*P",
    ),
    ("GC+SH+GPW", False): (
        "3.3.2, Theorem 1",
        _COUNTS,
        "Theorem 1 has 'if and only if' of M*N = C, which is needed, but not enough",
        "at C = F = 64 groups 8 and 8 take 5,120 parameters, 32 and 2 take 3,200",
        "its proof raises N to C/M, which need not divide F: raise M to C/N",
        "the best N, read 'N = 9N', has 9*N = F/N",
        "the greatest width, read '(6 sqrt(alpha)) 3', is (P/(6*sqrt(alpha)))**(2/3)",
    ),
    ("PW+DW+PW", True): (
        "3.3.3",
        "[Fog] has the same parameters, and the same greatest width at K = F/4",
        "the ratio at K = F/4, which is illegible, is (C + F + 9)/(36*C)",
    ),
    ("GPW+SH+DW+GPW", True): (
        "3.3.4, Theorem 1",
        _COUNTS,
        "the parameters, read 'K(M + N + 9)', are K*(C/M + F/N + 9)",
        "at M*N = K = F/4 the ratio is (C/M + 4*M + 9)/(36*C)",
        "that is best at C/M = 4*M, which [Fog] prints as 'M = 4M'",
        "for other K the divisors may not allow M*N = K, as at C = 10, K = 8, F = 10",
        "[Fog] has the same greatest width at K = F/4: P >= alpha*C*(9 + 4*sqrt(C))/4",
        "there P is equal where alpha*M = N",
    ),
}
