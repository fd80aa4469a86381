/* SQLite's WAL before 3.51.3 with continuous capture beside it (agent/follow/README.md), one question at a time.
 *
 *   stale   can a checkpointer publish a backfill count of an older generation while the agent watches (the WAL-reset bug)?
 *   missed  can the WAL be started over before the agent has shipped every frame?
 *   doubt   can the agent's judgement of continuity be wrong, or in doubt without need?
 *   end     can applications and agent wait for each other for ever?
 *
 * `run` has the list of questions, with what each is made of and what it has to find. Names as in the code: gen is the generation (salts), mx the
 * last committed frame, nb the backfill count, mark 0 and marks above it as SQLite's.
 *
 * Made of, by -D:
 *   AGENT=0           nobody watches                   RULE=0     the agent does not wait for a free checkpoint lock
 *   WRITERS=1|2       applications that write          READERS=n  applications that only read
 *   PASSIVE=n FULL=n RESTART=n TRUNC=n                 checkpointing connections of applications, that many of each
 *   OWNCKPT=1         the agent's own passive checkpoints, between two hand-overs
 *   CAREFUL=0         the agent's checkpoint comes without a hold beside it
 *   ASIDE=1           the agent lets go for a moment after it has taken all there is, so that an application starts its WAL over
 *   OWNRESTART=1      the agent's RESTART, whose busy handler advances its own hold
 *   UNSHIPPED=1       and does so without having taken the frames first
 *   SALTS=0           and afterwards takes any other generation for the next one
 *   FROMCHECK=0       and believes what is behind the place that it knows, whoever is overwriting it
 *   READCHECK=0       what is read of the WAL counts as read without a look at the salts behind it
 *   DEADLINE=0        the agent waits for the checkpoint lock for ever
 *   BOTHBYTES=0       it waits also where one process holds the write and the checkpoint lock
 *   ENDLESS=1         an application's checkpoint never loses patience (a busy handler that goes on for ever)
 */
#ifndef AGENT
#define AGENT 1
#endif
#ifndef RULE
#define RULE 1
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef READERS
#define READERS 0
#endif
#ifndef PASSIVE
#define PASSIVE 0
#endif
#ifndef FULL
#define FULL 0
#endif
#ifndef RESTART
#define RESTART 0
#endif
#ifndef TRUNC
#define TRUNC 0
#endif
#ifndef OWNCKPT
#define OWNCKPT 0
#endif
#ifndef CAREFUL
#define CAREFUL 1
#endif
#ifndef ASIDE
#define ASIDE 0
#endif
#ifndef OWNRESTART
#define OWNRESTART 0
#endif
#ifndef UNSHIPPED
#define UNSHIPPED 0
#endif
#ifndef SALTS
#define SALTS 1
#endif
#ifndef FROMCHECK
#define FROMCHECK 1
#endif
#ifndef READCHECK
#define READCHECK 1
#endif
#ifndef DEADLINE
#define DEADLINE 1
#endif
#ifndef BOTHBYTES
#define BOTHBYTES 1
#endif
#ifndef ENDLESS
#define ENDLESS 0
#endif
#ifndef MXG
#define MXG 2
#endif
#ifndef MXF
#define MXF 2
#endif
#ifndef ROUNDS
#define ROUNDS 3
#endif
#ifndef TRIES
#define TRIES 2
#endif

#define NONE 255
/* Whoever holds a mark above 0: its value and one more; 0: none. */
#define APPS (WRITERS + READERS)
#define HOLDS (APPS + 2)
byte mark[HOLDS];          /* the last two are the agent's */
#define A1 APPS
#define A2 (APPS + 1)
byte r0 = 0;               /* shared holders of mark 0 */
bool r0x = false;          /* its exclusive holder */
byte gen = 0, mx = 1, nb = 0;
byte wlock = NONE, clock = NONE;  /* by process number */

/* The agent. */
bool watch = false;        /* it holds, and has seen the checkpoint lock free */
bool holds = false;
byte sgen = 0, spos = 0;   /* what was shipped */
byte hgen = 0, hpos = 0;   /* where its hold began */
byte ngen = 0, npos = 0;   /* where the next one began */
bool at0 = false;          /* its hold is on mark 0 */
bool indoubt = false;
#if ASIDE
bool unsure = false;       /* its hold is on mark 0 with frames that it has not taken: not kept, and known not to be */
byte end = 0;              /* the last commit of the generation of what was shipped, when it is over */
bool hit = false;          /* and somebody has overwritten the last frame that was shipped, with a commit or without */
#else
#define unsure false
#endif

inline started_over() {
  /* Ghost: everything of the old generation has been shipped, unless the agent does not claim to follow. */
  assert(!holds || indoubt || unsure || (sgen == gen && spos == mx) || (sgen < gen && mx == 0) );
#if ASIDE
  if :: gen == sgen -> end = mx; hit = false :: else fi;   /* it stays in the file until the next generations get there */
#endif
  gen++; mx = 0; nb = 0
}

/* No reader on a mark above 0. At most five hold one. */
#define NO_MARK(k) (mark[(k) % HOLDS] == 0)
#define FREE_MARKS (NO_MARK(0) && NO_MARK(1) && NO_MARK(2) && NO_MARK(3) && NO_MARK(4))

/* No reader on a mark below m. */
#define NOT_BELOW(k) (mark[(k) % HOLDS] == 0 || mark[(k) % HOLDS] > m)
#define NOBODY_BELOW (NOT_BELOW(0) && NOT_BELOW(1) && NOT_BELOW(2) && NOT_BELOW(3) && NOT_BELOW(4))

inline lower(safe) {
  i = 0;
  do
  :: i < HOLDS -> if :: (mark[i] > 0 && mark[i] - 1 < safe) -> safe = mark[i] - 1 :: else fi; i++
  :: else -> break
  od;
  i = 0
}

proctype Writer(byte me) {
  bool on0;
  byte commits = 0;
  do
  :: commits < MXG * MXF + 1 -> commits++;
     atomic { wlock == NONE -> wlock = _pid }
     if
     :: atomic { (nb == mx && !r0x) -> on0 = true; r0++ }
     :: atomic { nb != mx -> on0 = false; mark[me] = mx + 1 }
     fi;
     if
     :: on0 ->
        atomic { if :: (nb > 0 && nb == mx && FREE_MARKS && gen < MXG) -> started_over() :: else fi }
        atomic { r0--; mark[me] = mx + 1 }
     :: else
     fi;
#if ASIDE
     /* Frames are in the file before they are committed, and stay there when the transaction is rolled back. */
     if
     :: atomic { mx < MXF -> if :: (gen != sgen && mx + 1 >= spos) -> hit = true :: else fi };
        if :: atomic { mx++ } :: skip fi
     :: atomic { mx == MXF -> skip }
     fi;
#else
     atomic { if :: mx < MXF -> mx++ :: else fi }
#endif
     atomic { mark[me] = 0; wlock = NONE; on0 = false }
  :: break
  od
}

proctype Reader(byte me) {
  byte reads = 0;
  do
  :: reads < TRIES -> reads++;
     if
     :: atomic { (nb == mx && !r0x) -> r0++ }; r0--
     :: atomic { nb != mx -> mark[me] = mx + 1 }; mark[me] = 0
     fi
  :: break
  od
}

/* What all checkpoints do once they hold their locks: g, m is the header as it was read. `waits`: it waits for readers in its way. */
inline backfill(waits) {
  if
  :: nb < m ->
     safe = m;
     if
     :: waits ->
        if
        :: atomic { NOBODY_BELOW -> safe = m }
#if !ENDLESS
        :: atomic { safe = m; lower(safe) }   /* its patience ends */
#endif
        fi
     :: else -> atomic { lower(safe) }
     fi;
     if
     :: nb < safe ->
        if
        :: atomic { (r0 == 0 && !r0x) -> r0x = true };
           atomic {
             assert(g == gen || (AGENT && !watch));   /* stale */
             /* What strikes before the agent watches is not its question: that run goes on as if it had not. */
             if :: g == gen -> nb = safe :: else fi
           }
           r0x = false
        :: atomic { (!waits && (r0 != 0 || r0x)) -> skip }   /* busy: gives up */
#if !ENDLESS
        :: waits -> skip                                       /* its patience ends */
#endif
        fi
     :: else
     fi
  :: else
  fi
}

proctype Passive() {
  byte g, m, safe, i;
  byte tries = 0;
  do
  :: tries < TRIES -> tries++;
     if
     :: atomic { clock == NONE -> clock = _pid };
        atomic { g = gen; m = mx }
        backfill(false);
        atomic { clock = NONE; g = 0; m = 0; safe = 0 }
     :: atomic { clock != NONE -> skip }
     fi
  :: break
  od
}

/* FULL, RESTART (restarts), TRUNCATE (truncates): with the write lock, or as a passive one where that is not to be had in time. */
proctype Strong(bool restarts; bool truncates) {
  byte g, m, safe, i;
  byte tries = 0;
  bool both;
  do
  :: tries < TRIES -> tries++;
     atomic { clock == NONE -> clock = _pid };
     if
     :: atomic { wlock == NONE -> wlock = _pid; both = true }
#if !ENDLESS
     :: atomic { wlock != NONE -> both = false }
#endif
     fi;
     atomic { g = gen; m = mx }
     backfill(both);
     if
     :: atomic { both && restarts && nb == mx && m == mx && g == gen && (r0x == false) -> skip };
        if
        :: atomic { FREE_MARKS ->   /* exclusive on all marks above 0 */
             if :: (truncates && gen < MXG) -> started_over() :: else fi }
#if !ENDLESS
        :: skip                     /* its patience ends */
#endif
        fi
     :: else
     fi;
     atomic { if :: both -> wlock = NONE :: else fi; clock = NONE; both = false; g = 0; m = 0; safe = 0 }
  :: break
  od
}

/* Judge() of continuity.cc, and what the agent does with it: it reads what is new, and then looks whether the WAL was started over meanwhile
 * (WalIndex::NotStartedOver). Doubt is a comparison of pages, by a transaction of its own. */
inline look_and_ship() {
  atomic {
    lgen = gen; lpos = mx;
    if
    :: sgen == gen -> assert(indoubt || mx >= spos)
    :: else ->
       if
       :: (at0 && ((hgen == sgen && hpos == spos) || (spos == 0 && hgen < sgen))) -> skip
       :: else -> assert(indoubt || unsure); indoubt = true
       fi
    fi
  };
  atomic {
    if
    :: indoubt -> sgen = gen; spos = mx
    :: else ->
       if
       :: (lpos > 0 && (lgen != sgen || lpos > spos) && gen != lgen) ->
          assert(READCHECK);   /* overwritten while it was read */
          assert(unsure);      /* doubt without need */
          sgen = gen; spos = mx
       :: else -> sgen = lgen; spos = lpos
       fi
    fi;
#if ASIDE
    unsure = false; hit = false;
#endif
    indoubt = false; lgen = 0; lpos = 0
  }
}

/* By the hold that is about to end: a reset that came before the next one began. */
inline rebase() {
  if
  :: sgen != gen ->
     if
     :: (at0 && ((hgen == sgen && hpos == spos) || (spos == 0 && hgen < sgen))) -> sgen = gen; spos = 0
     :: else -> assert(indoubt); sgen = gen; spos = 0; indoubt = true
     fi
  :: else
  fi
}

inline see_lock_free() {
  if
  :: atomic { clock == NONE -> watch = true }
#if BOTHBYTES
  :: atomic { (clock != NONE && wlock == clock) -> skip }  /* it read the header behind the write lock */
#endif
#if DEADLINE
  :: atomic { clock != NONE -> watch = false; indoubt = true }
#endif
  fi
}

/* JudgeAfterStandingAside() and TakeEnd(): the next generation, which has not come to where the last one's end is. */
inline take_end() {
  atomic { lgen = gen; lpos = mx };
  atomic {
    if
    :: sgen == lgen -> assert(lpos >= spos)
    :: (sgen != lgen && (!SALTS || lgen == sgen + 1) && lpos < spos) ->
       /* Frames are overwritten one after the other: while the one that is known is there, those behind it are. */
       if
       :: (hit && FROMCHECK) -> indoubt = true; sgen = gen; spos = mx
       :: else ->
          assert(end >= spos && (!hit || end == spos));   /* missed */
          assert(lgen == sgen + 1);                       /* a generation in between was missed */
          sgen = lgen; spos = 0
       fi
    :: else -> indoubt = true; sgen = gen; spos = mx
    fi;
    unsure = (!indoubt && at0 && !(hgen == sgen && hpos == spos) && !(hgen < sgen && spos == 0));
    hit = false; holds = true; lgen = 0; lpos = 0
  }
}

proctype Agent() {
  byte rounds = 0, seen, lgen, lpos;
  byte i, m, safe, g;
  bool next0;
  /* Attached: holds the newest state, and compares pages: all of it is shipped. */
  if
  :: atomic { (nb == mx && !r0x) -> at0 = true; r0++; sgen = gen; spos = mx; hgen = gen; hpos = mx; holds = true }
  :: atomic { nb != mx -> at0 = false; mark[A1] = mx + 1; sgen = gen; spos = mx; hgen = gen; hpos = mx; holds = true }
  fi;
  /* Once after it has attached. */
#if RULE
  see_lock_free();
#else
  watch = true;
#endif
  do
  :: rounds < ROUNDS -> rounds++;
     look_and_ship();
     seen = hgen;
again:
#if RULE
     if
     :: atomic { (at0 && gen != seen) -> seen = gen }; see_lock_free()
     :: else
     fi;
#endif
     /* The next hold. */
     if
     :: atomic { (nb == mx && !r0x) -> next0 = true; r0++; ngen = gen; npos = mx }
     :: atomic { nb != mx -> next0 = false; mark[A2] = mx + 1; ngen = gen; npos = mx }
     fi;
#if RULE
     if
     :: atomic { (at0 && watch && gen != seen) -> if :: next0 -> r0-- :: else -> mark[A2] = 0 fi; next0 = false }; goto again
     :: else
     fi;
#endif
     atomic {
       rebase();
       if :: at0 -> r0-- :: else -> mark[A1] = 0 fi;
       at0 = next0; next0 = false;
       hgen = ngen; hpos = npos; ngen = 0; npos = 0;
       mark[A1] = mark[A2]; mark[A2] = 0;
       seen = 0
     }
#if OWNCKPT
     /* Everything up to the hold is shipped; it bounds what is copied. */
#if !CAREFUL
     atomic { if :: at0 -> r0-- :: else -> mark[A1] = 0 fi; at0 = false };
#endif
     if
     :: atomic { clock == NONE -> clock = _pid };
        atomic { g = gen; m = mx }
        backfill(false);
        atomic { clock = NONE; g = 0; m = 0; safe = 0 }
     :: atomic { clock != NONE -> skip }
     fi;
#if !CAREFUL
     if
     :: atomic { (nb == mx && !r0x) -> at0 = true; r0++; hgen = gen; hpos = mx }
     :: atomic { nb != mx -> mark[A1] = mx + 1; hgen = gen; hpos = mx }
     fi
#endif
#endif
#if OWNRESTART
     if
     :: atomic { (!at0 && clock == NONE) -> clock = _pid };
        if
        :: atomic { wlock == NONE -> wlock = _pid };
           atomic { g = gen; m = mx }
           /* Its own hold is in the way. */
#if !UNSHIPPED
           look_and_ship();
#endif
           mark[A1] = 0;
           if
           :: atomic { (nb == mx && !r0x) -> at0 = true; r0++; hgen = gen; hpos = mx }
           :: atomic { nb != mx -> mark[A1] = mx + 1; hgen = gen; hpos = mx };
              backfill(true);
              /* All is copied: to mark 0. */
              if
              :: atomic { (nb == mx && !r0x) -> mark[A1] = 0; at0 = true; r0++; hgen = gen; hpos = mx }
              :: atomic { nb != mx -> skip }
              fi
           fi;
           atomic { wlock = NONE }
        :: atomic { wlock != NONE -> skip }   /* its budget is over */
        fi;
        atomic { clock = NONE; g = 0; m = 0; safe = 0 }
     :: skip
     fi
#endif
#if ASIDE
     if
     :: atomic { !at0 -> skip };
        /* All there is has been taken; what comes between that and the letting go is still there, or the end of its generation. */
        look_and_ship();
        atomic { mark[A1] = 0; holds = false; watch = false };
        if
        :: atomic { (nb == mx && !r0x) -> at0 = true; r0++; hgen = gen; hpos = mx }
        :: atomic { nb != mx -> mark[A1] = mx + 1; hgen = gen; hpos = mx }
        fi;
        see_lock_free();
        take_end()
     :: skip
     fi
#endif
  :: break
  od;
  /* Lets go: by the rule as well. */
  look_and_ship();
#if RULE
  if
  :: atomic { (at0 && gen != hgen) -> skip }; see_lock_free()
  :: else
  fi;
#endif
  atomic { holds = false; watch = false; if :: at0 -> r0--; at0 = false :: else -> mark[A1] = 0 fi }
}

init {
  byte n;
  atomic {
#if AGENT
    run Agent();
#endif
    n = 0; do :: n < WRITERS -> run Writer(n); n++ :: else -> break od;
    n = 0; do :: n < READERS -> run Reader(WRITERS + n); n++ :: else -> break od;
    n = 0; do :: n < PASSIVE -> run Passive(); n++ :: else -> break od;
    n = 0; do :: n < FULL -> run Strong(false, false); n++ :: else -> break od;
    n = 0; do :: n < RESTART -> run Strong(true, false); n++ :: else -> break od;
    n = 0; do :: n < TRUNC -> run Strong(true, true); n++ :: else -> break od;
    n = 0
  }
}
