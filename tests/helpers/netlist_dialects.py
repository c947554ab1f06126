"""Netlists in the styles of ngspice, LTspice, KiCad and PSpice, each with one operating point that ngspice finds.

A case is a text that ngspice reads as it is, or a pair: what another program writes, and the same for ngspice.
"""

LINEAR = {
    "ltspice": (
        (
            "* C:\\Users\\somebody\\Documents\\divider.asc\nR1 out in 10k\n"
            "R2 out 0 4.7k tol=1 pwr=0.1\nC1 out 0 1\xb5 Rser=10m\nV1 in 0 SINE(1 2 1K) AC 1\n"
            ".tran 10m\n.backanno\n.end\n"
        ),
        "t\nR1 out in 10k\nR2 out 0 4.7k\nV1 in 0 1\n",
    ),
    "kicad": (
        ".title KiCad schematic\n.model __D1 D\n.save all\n.probe alli\nR1 /in /out 1k\n"
        "R2 /out GND 2k\nV1 /in GND DC 5 AC 1\nC1 /out GND 100n\n.op\n.end\n"
    ),
    "pspice": (
        (
            "* source AMPLIFIER\n.PARAM RVAL=2.2k GAIN={2*RVAL/1k}\nV_V1  IN 0 DC 1 AC 1\n"
            "R_R1  IN N1 {RVAL}\nR_R2  N1 0  1k TC=0,0\nE_E1  OUT 0 N1 0 {GAIN}\n"
            "R_R3  OUT 0 10k\n.PROBE V(*) I(*)\n.OP\n.END\n"
        ),
        (
            "* source AMPLIFIER\n.PARAM RVAL=2.2k GAIN={2*RVAL/1k}\nV_V1  IN 0 DC 1 AC 1\n"
            "R_R1  IN N1 {RVAL}\nR_R2  N1 0  1k \nE_E1  OUT 0 N1 0 {GAIN}\nR_R3  OUT 0 10k\n"
            ".PROBE V(*) I(*)\n.OP\n.END\n"
        ),
    ),
    "byte-order mark": (
        "\ufefft\r\nV1 a 0 1\r\nR1 a b 1k\r\nR2 b 0 3k\r\n",
        "t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 3k\n",
    ),
    "greek mu": (
        "t\nI1 0 a 5\u03bcA\nR1 a 0 4.7k\u03a9\n",
        "t\nI1 0 a 5u\nR1 a 0 4.7k\n",
    ),
    "R=": "t\nV1 a 0 1\nR1 a b R=2k\nR2 b 0 1k m=2\nR3 b 0 1k scale=3\n",
    "warm resistors": (
        "t\nV1 a 0 1\nR1 a b 2k tc1=0.01 tc2=0.001\nR2 b 0 1k tc=0.02 0\n"
        "R3 b 0 3k tc1=0.01 temp=47\nR4 b 0 5k tc1=0.01 dtemp=10\nR5 b 0 7k tce=1\n.temp 37\n"
    ),
    "resistor models": (
        "t\nV1 a 0 1\nR1 a b rmod l=10u w=2u\nR2 b 0 2k rmod\nR3 b c smod\n"
        "R4 c 0 rmod 3k m=2\n.model rmod R(RSH=1000 TC1=0.01 NARROW=0.5u SHORT=1u)\n"
        ".model smod RES(R=4k TNOM=17)\n.temp 37\n"
    ),
    "default width": "t\nV1 a 0 1\nR1 a b rmod l=10u\nR2 b 0 1k\n.model rmod R(RSH=1000 DEFW=5u)\n",
    "negative resistance": "t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 -3k\nR3 b c 2k\nR4 c 0 1k\n",
    "inductors and capacitors": "t\nV1 a 0 1\nL1 a b 1m\nR1 b c 1k\nL2 c d 1m\nR2 d 0 1k\nC1 c 0 1u ic=3\n",
    "mutual inductance": (
        "t\nV1 a 0 1\nR1 a b 1k\nL1 b c 1m\nR2 c 0 2k\nL2 d 0 1m\nR3 d 0 1k\nK1 L1 L2 0.9\n",
        "t\nV1 a 0 1\nR1 a b 1k\nV9 b c 0\nR2 c 0 2k\nV8 d 0 0\nR3 d 0 1k\n",
    ),
    "requests": (
        (
            "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\n.title other\n.global vdd\n.ic v(b)=5\n"
            ".nodeset v(b)=4\n.save v(b)\n.tran 1u 1m\n.ac dec 10 1 1k\n.dc V1 0 1 0.1\n"
            ".print op v(b)\n.plot op v(b)\n.meas tran x max v(b)\n.op\n"
        ),
        "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\n",
    ),
    "parameters": ("t\n.param b={a*2} a=3k\n.param c='sqrt(a/1k)+b/1k' d=c+1\nV1 x 0 {d}\nR1 x y {a}\nR2 y 0 b\n"),
    "functions": (
        "t\n"
        ".param x={max(1,2)*min(3,4)+abs(-3)+exp(1)+ln(10)+log(10)+log10(100)+sgn(-3)+"
        "int(-2.7)+floor(-2.7)+ceil(-2.2)+pow(-2,3)+pwr(-2,3)+sin(1)*cos(1)*tan(1)+atan(1)+"
        "sqr(3)+nint(2.5)}\nI1 0 a {x}\nR1 a 0 1\n"
    ),
    "powers": "t\n.param x={2^3^2-2**3**2+(-2^2)+2*3^2+2^-1+10/4/5+7%4}\nI1 0 a {x}\nR1 a 0 1\n",
    "logic": (
        "t\n"
        ".param x={(1<2)?5:6} y={1==1 ? 3 : 4} z={(2>1 && 3>2)+(!0)*2+((1>2)||(2>=2))*4+"
        "(3!=4)*8}\nI1 0 a {x}\nR1 a 0 {y}\nI2 0 b {z}\nR2 b 0 1\n"
    ),
    "redefined parameter": "t\n.param a=3\n.param a=4\nI1 0 x {a}\nR1 x 0 1\n",
    "subcircuit": (
        "t\nV1 a 0 1\nRb b 0 1k\nX1 a b div\n.subckt div in out params: r=1k k=2\n"
        "R1 in n {r}\nR2 n out {r*k}\nR3 out 0 {r}\n.ends\n"
    ),
    "subcircuit with parameters": (
        "t\n.param g=3\nV1 a 0 1\nRb b 0 1k\n.subckt div in out params: r=1k k=2\n"
        "R1 in n {r}\nR2 n out {r*k}\nR3 out 0 {r}\n.ends\nX1 a b div r=2k k=g\n"
        "X2 (a b) div params: k={g/2}\n"
    ),
    "subcircuit times two": (
        "t\nV1 a 0 1\nRb b 0 1k\n.subckt div in out params: r=1k k=2\nR1 in n {r}\n"
        "R2 n out {r*k}\nR3 out 0 {r}\n.ends\nX1 a b div m=2\n"
    ),
    "nested subcircuits": (
        "t\nV1 a 0 1\nRb b 0 1k\n.subckt div in out params: r=1k k=2\nR1 in n {r}\n"
        "R2 n out {r*k}\nR3 out 0 {r}\n.ends\n.subckt two p q\n.param s=3k\n"
        "X1 p m div r={s}\nX2 m q div\n.ends two\nX1 a b two\n"
    ),
    "inner subcircuit": (
        "t\n.subckt out1 a\n.subckt in1 a\nR1 a 0 {g}\n.ends\n.param g=2k\nX1 a in1\n.ends\nI1 0 a 1m\nX9 a out1\n"
    ),
    "callers' parameters": (
        "t\n.param g=1k\n.subckt in1 a\nR1 a 0 {g}\n.ends\n.subckt out1 a\n.param g=2k\n"
        "X1 a in1\n.ends\nI1 0 a 1m\nX9 a out1\n"
    ),
    "global nodes": ("t\n.global vdd\nV1 vdd 0 1\n.subckt s a\nR1 vdd a 1k\nR2 a gnd 5k\n.ends\nX1 b s\nR2 b 0 1k\n"),
    "models in subcircuits": (
        "t\nV1 a 0 1\nX1 a b s\nR2 b 0 1k\n.subckt s a b\nR1 a b 2k rm\n.model rm R(TC1=0.01)\n.ends\n.temp 37\n"
    ),
    "sources in time": (
        "t\nV0 a0 0 SIN(1 2 1k)\nR0 a0 0 1k\nV1 a1 0 DC 3 SIN(1 2 1k)\nR1 a1 0 1k\n"
        "V2 a2 0 SIN(1 2 1k 0 0 30)\nR2 a2 0 1k\nV3 a3 0 SIN(1 2 1k 1m 0 30)\nR3 a3 0 1k\n"
        "V4 a4 0 PULSE(1 2 1u 1n 1n 1u 2u)\nR4 a4 0 1k\nV5 a5 0 EXP(1 2 0 1u)\nR5 a5 0 1k\n"
        "V6 a6 0 PWL(1u 3 2u 4)\nR6 a6 0 1k\nV7 a7 0 PWL(-1u 3 1u 4)\nR7 a7 0 1k\n"
        "V8 a8 0 SFFM(1 2 1k 3 1 30 40)\nR8 a8 0 1k\nV9 a9 0 AM(1 2 1k 1k)\nR9 a9 0 1k\n"
        "V10 a10 0 AC 1\nR10 a10 0 1k\nV11 a11 0 AC 1 0 DC 2\nR11 a11 0 1k\n"
        "V12 a12 0 2 AC 1 30 SIN(1 2 1k)\nR12 a12 0 1k\nV13 a13 0 \nR13 a13 0 1k\n"
        "V14 a14 0 DC {2*3}\nR14 a14 0 1k\nV15 a15 0 dc=4\nR15 a15 0 1k\n"
        "V16 a16 0 pulse (1 2 0 1n 1n)\nR16 a16 0 1k\nV17 a17 0 sin 1 2 1k\nR17 a17 0 1k\n"
    ),
    "current sources": "t\nI1 0 a SIN(1m 2m 1k)\nR1 a 0 1k\nI2 0 b 1m m=3\nR2 b 0 1k\n",
    "E": ("t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nE1 c 0 b 0 {2*2}\nR3 c 0 1k\nE2 d c a b -1\nR4 d 0 1k\n"),
    "G": ("t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nG1 0 c b 0 1m\nR3 c 0 1k\nG2 b c a 0 2m m=2\nG3 b a c 0 0.3m\n"),
    "a G that is a resistor": "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nG1 b 0 b 0 1m\nG2 a b a b -0.5m\n",
    "F": ("t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nVs b c 0\nR3 c 0 1k\nF1 0 d Vs 2\nR4 d 0 1k\nF2 d 0 Vs 0.5 m=2\n"),
    "F of a held node": ("t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nF1 0 b V1 -0.5\nF2 0 d V1 2\nR4 d 0 1k\nR5 a d 3k\n"),
    "F of a floating source": (
        "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nV2 b c 0.5\nR3 c 0 3k\nF1 0 d V2 2\nF2 b 0 V2 0.3\nR4 d 0 1k\n"
    ),
    "F of a source from ground": "t\nV1 0 a 2\nR1 a b 1k\nR2 b 0 1k\nF1 0 b V1 0.5\n",
    "F of two sources in a row": (
        "t\nV1 a 0 2\nVs a b 0\nR1 b c 1k\nR2 c 0 1k\nR3 a c 2k\nF1 0 c V1 -0.4\nF2 0 c Vs 0.3\n"
    ),
    "H": (
        "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nH1 c 0 V1 500\nR3 c 0 1k\nVs b d 0\nR4 d 0 2k\nH2 e c Vs -300\nR5 e 0 1k\n"
    ),
    "POLY": (
        "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nE1 c 0 POLY(2) (b,0) (a,0) 1 2 3\nR3 c 0 1k\n"
        "G1 0 d POLY(1) b 0 1m 2m\nR4 d 0 1k\nF1 0 e POLY(1) V1 1m 0.5\nR5 e 0 1k\n"
        "H1 f 0 POLY(1) V1 1 500\nR6 f 0 1k\n"
    ),
    "B": (
        "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nB1 c 0 V=2*V(b,a)+1-V(a)/4+pi\nR3 c 0 1k\n"
        "B2 0 d I=V(a)*1m+i(V1)*2+1m\nR4 d 0 1k\nB3 e 0 V=i(V1)*1k-v(b)*sqrt(4)\nR5 e 0 1\n"
    ),
    "B with parameters": (".title t\n.param g=2m\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nB1 0 c I={g}*V(b)\nR3 c 0 1k\n"),
    "laws of E and G": (
        "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nE1 c 0 VALUE={V(b)*2}\nR3 c 0 1k\n"
        "E2 d 0 vol='V(b)*3'\nR4 d 0 1k\nG1 0 e VALUE={V(a)*1m+2m}\nR5 e 0 1k\n"
        "G2 f 0 cur='V(b)*2'\nR6 f 0 1\n"
    ),
    "sensing subcircuits": (
        "t\n.subckt amp p q\nV1 p m 0\nR1 m q 1k\nF1 q 0 V1 0.3\nH1 h 0 V1 100\nRh h 0 1\n"
        "B1 k 0 V=2*V(m)+i(V1)\nRk k 0 1\n.ends\nV1 a 0 1\nRb b 0 1k\nX1 a b amp\n"
    ),
    "loops of one node": "t\nV1 a 0 2\nR1 a b 1k\nR2 b b 1k\nR3 b 0 1k\nC1 b b 1u\nI1 b b 1\n",
}

WITH_DIODES = {
    "series resistance": (
        "t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 m\n"
        ".model m D(IS=1e-12 N=1.5 RS=100 CJO=4p M=0.4 TT=20n VJ=0.7 FC=0.5 KF=0 AF=1)\n"
    ),
    "area": "t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 m area=2 m=3\n.model m D(IS=1e-12 N=1.5 RS=100)\n",
    "vendor words": (
        (
            "t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 m\n"
            ".model m D(IS=1e-12 N=1.5 RS=0.5 Iave=200m Vpk=75 mfg=OnSemi type=silicon)\n"
        ),
        "t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 m\n.model m D(IS=1e-12 N=1.5 RS=0.5)\n",
    ),
    "off": "t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 m off\n.model m D(IS=1e-12 N=1.5 BV=5 IBV=1u)\n",
    "own nominal temperature": (
        "t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 m\n.model m D(IS=1e-12 N=1.5 TNOM=50 EG=1.0 XTI=2)\n.temp 37\n"
    ),
    "two models": ("t\nV1 a 0 2\nR1 a b 1k\nD1 b c m\nD2 c 0 n\n.model m D(IS=1e-12 N=1.5)\n.model n D(IS=1e-9)\n"),
    "models with parameters": (
        "t\n.param is0=2p\nV1 a 0 2\nX1 a 0 s n=1.7\nX2 a 0 s\n.subckt s a k n=1.2\n"
        "R1 a b 1k\nD1 b k m\n.model m D(IS={is0} N={n})\n.ends\n"
    ),
    "times two": (
        "t\nV1 a 0 2\nX1 a 0 s m=2\nR2 b a 1k\nR3 b 0 1k\n.subckt s a k\nR1 a b 1k\n"
        "D1 b k m\n.model m D(IS=1p RS=10)\n.ends\n"
    ),
    "reverse": "t\nV1 a 0 -2\nR1 a b 1k\nD1 b 0 m\nR2 b 0 100k\n.model m D(IS=1e-12)\n",
    "rectifier": (
        "t\nV1 a b SIN(1 2 50)\nD1 a c m\nD2 b c m\nD3 0 a m\nD4 0 b m\nC1 c 0 1m\n"
        "R1 c 0 1k\nR2 a 0 1meg\nR3 b 0 1meg\n.model m D(IS=1n N=1.6)\n"
    ),
    "with a transconductance": "t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 m\nG1 0 c b 0 1m\nR2 c 0 1k\n.model m D(IS=1e-12)\n",
    "with an ammeter": ("t\nV1 a 0 2\nR1 a b 1k\nD1 b c m\nVs c 0 0\nF1 0 d Vs 2\nR2 d 0 1k\n.model m D(IS=1e-12)\n"),
    "with a negative resistance": "t\nV1 a 0 2\nR1 a b 1k\nR2 b 0 -5k\nD1 b 0 m\n.model m D(IS=1e-12)\n",
}
