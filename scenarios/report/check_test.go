package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/look"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

func TestCheckNamesTheField(t *testing.T) {
	if err := check(rotation()); err != nil {
		t.Fatal(err)
	}
	far := noon.AddDate(1, 0, 0)
	const around = "want a time between 2026-03-13T12:00:00Z and 2026-03-21T12:00:00Z, since the run began at 2026-03-14T12:00:00Z"
	const week = "want 0 to 604800000000000, which is a week"
	for want, change := range map[string]func(*trial.Record){
		"began is missing: want the time at which the run began, such as 2026-03-14T12:00:00Z": func(r *trial.Record) { r.Began = time.Time{} },
		"ended is missing: want the time at which the run ended, such as 2026-03-14T12:00:00Z": func(r *trial.Record) { r.Ended = time.Time{} },
		"ended is 2026-03-14T11:59:00Z, before began, which is 2026-03-14T12:00:00Z: want a later time": func(r *trial.Record) {
			r.Ended = after(-60)
		},
		"ended is 2027-03-14T12:00:00Z: " + around:                  func(r *trial.Record) { r.Ended = far },
		"marks[2].at is 2027-03-14T12:00:00Z: " + around:            func(r *trial.Record) { r.Marks[2].At = far },
		"streams[0].calls[7].at is 2027-03-14T12:00:00Z: " + around: func(r *trial.Record) { r.Streams[0].Calls[7].At = far },
		"steps[1].took is -1 ns: " + week:                           func(r *trial.Record) { r.Steps[1].Took = -1 },
		"measures[0].bound is 9223372036854775807 ns: " + week:      func(r *trial.Record) { r.Measures[0].Bound = 1<<63 - 1 },
		"verdicts[1].within is -5 ns: " + week:                      func(r *trial.Record) { r.Verdicts[1].Within = -5 },
		"marks[0].what has 65537 bytes: want at most 65536":         func(r *trial.Record) { r.Marks[0].What = strings.Repeat("x", textLimit+1) },
		"streams[0].calls[3].server.id has 65537 bytes: want at most 65536": func(r *trial.Record) {
			r.Streams[0].Calls[3].Server.ID = strings.Repeat("x", textLimit+1)
		},
		"steps[0].seen has 501 elements: want at most 500": func(r *trial.Record) { r.Steps[0].Seen = make([]string, 501) },
		"marks has 501 elements: want at most 500":         func(r *trial.Record) { r.Marks = make([]trial.Mark, 501) },
		"looks has 20001 elements: want at most 20000":     func(r *trial.Record) { r.Looks = make([]trial.Look, 20001) },
		"holdings has 2001 elements: want at most 2000":    func(r *trial.Record) { r.Holdings = make([]trial.Holding, 2001) },
		"streams[1].calls brings the calls of the record to 100001: want at most 100000": func(r *trial.Record) {
			r.Streams = []traffic.Stream{{Calls: make([]traffic.Call, 20_000)}, {Calls: make([]traffic.Call, 80_001)}}
		},
		"streams have 51 different outcomes of calls: want at most 50": func(r *trial.Record) {
			for i := range 50 {
				r.Streams[0].Calls[i].Outcome = traffic.Outcome(fmt.Sprint(i))
			}
		},
	} {
		r := rotation()
		change(&r)
		if err := check(r); err == nil || err.Error() != want {
			t.Errorf("error %v\nwant %s", err, want)
		}
	}
	// What a certificate says is of any time.
	r := rotation()
	if r.Streams[0].Calls[3].Server.NotAfter = far; check(r) != nil {
		t.Error(check(r))
	}
}

// enough is far more than a report of any record that is read may take, and far
// less than for ever.
const enough = time.Minute

// TestNoRecordTakesLong reads, judges and renders records as their worst author
// would write them, and such as chance makes of good ones.
func TestNoRecordTakesLong(t *testing.T) {
	dir := t.TempDir()
	refused := 0
	try := func(what string, data []byte) {
		t.Helper()
		file := filepath.Join(dir, "record.json")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			records, err := Read(file)
			if err == nil {
				records[0] = trial.Judge(records[0])
				for _, render := range []func(io.Writer, []trial.Record) error{HTML, JUnit, console(false)} {
					if err := render(io.Discard, records); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
			}
			ended <- err
		}()
		select {
		case err := <-ended:
			if err != nil {
				refused++
			}
		case <-time.After(enough):
			t.Fatalf("%s: no report after %s", what, enough)
		}
	}

	for what, r := range worst() {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		try(what, data)
	}
	if refused != 0 {
		t.Errorf("%d of the worst records are refused: they must be as bad as a record may be", refused)
	}

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var good [][]byte
	for _, r := range []trial.Record{rotation(), failed(), empty()} {
		for i := range r.Streams {
			r.Streams[i].Calls = r.Streams[i].Calls[:40]
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, data)
	}
	const tries = 200
	for i := range tries {
		try(fmt.Sprintf("try %d of seed %d", i, seed), mutated(t, random, good[i%len(good)]))
	}
	t.Logf("%d of %d are refused", refused, tries)
	if refused == 0 || refused == tries {
		t.Errorf("%d of %d are refused: the changes are too small or too large", refused, tries)
	}
}

// worst are records at the limits of what is read.
func worst() map[string]trial.Record {
	long := strings.Repeat("long ", textLimit/5)
	marks, measures, holdings, calls, steps, looks := record("a/b", "", 1), record("a/b", "", 1), record("a/b", "", 1), record("a/b", "", 1), record("a/b", "", 1), record("a/b", "", 1)
	for i := range lookLimit {
		looks.Looks = append(looks.Looks, trial.Look{Of: fmt.Sprint(i % 300), At: after(float64(i) / lookLimit), Seen: fmt.Sprint(i)})
	}
	for i := range listLimit {
		looks.Verdicts = append(looks.Verdicts, trial.Verdict{Verdict: traffic.Verdict{Rule: trial.Looked, Stream: fmt.Sprint(i % 300), From: noon, Until: after(1)}, Want: []string{"1"}})
	}
	for i := range listLimit {
		at := after(float64(i) / listLimit)
		text := ""
		if i < 200 {
			text = long
		}
		marks.Marks = append(marks.Marks, trial.Mark{At: noon, What: text})
		measures.Measures = append(measures.Measures, trial.Measure{At: at, Took: longest, Bound: longest, Slack: longest, What: text})
		steps.Steps = append(steps.Steps, trial.Step{Name: text, Began: at, Took: longest})
		steps.Windows = append(steps.Windows, trial.Window{Name: "x", Injected: noon, Felt: noon, Recovered: noon, Healed: at})
	}
	for i := range holdingLimit {
		holdings.Holdings = append(holdings.Holdings, trial.Holding{
			At: after(float64(i) / holdingLimit), Holder: fmt.Sprint(i % 900), Of: fmt.Sprint(i), State: "x",
			X509: []string{fmt.Sprint(i % look.Looks)}, JWT: []string{fmt.Sprint((i + 1) % look.Looks)},
		})
	}
	for range 5 {
		s := stream(0, 1, traffic.Fresh, func(float64, *traffic.Call) {})
		s.Calls = nil
		for i := range callLimit / 5 {
			s.Calls = append(s.Calls, traffic.Call{
				At: after(float64(i) / callLimit), Outcome: traffic.Outcome(fmt.Sprint(i % outcomeLimit)),
				Server: &traffic.Party{Authority: fmt.Sprint(i % look.Looks)},
			})
		}
		calls.Streams = append(calls.Streams, s)
	}
	for range 100 {
		calls.Verdicts = append(calls.Verdicts, trial.Verdict{Verdict: traffic.Verdict{Rule: traffic.AuthorityBy, Stream: "quotes", From: noon, Within: longest}})
	}
	return map[string]trial.Record{
		"long marks at one time": marks, "long waits": measures, "many bundles": holdings, "many calls": calls, "many looks": looks, "many steps and faults": steps,
	}
}

// mutated changes a few values of a record in JSON, anywhere in it.
func mutated(t *testing.T, random *rand.Rand, record []byte) []byte {
	t.Helper()
	var tree any
	if err := json.Unmarshal(record, &tree); err != nil {
		t.Fatal(err)
	}
	values := []any{
		nil, "", "x", strings.Repeat("é ", 20_000), 0, -1, int64(1<<63 - 1), int64(-1 << 63), true, []any{}, map[string]any{},
		"0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-03-14T12:00:01Z", "2026-03-20T12:00:01Z", "answered", "\x1b[31m\u202e",
	}
	for range 1 + random.IntN(3) {
		tree = change(random, tree, values)
	}
	data, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	if random.IntN(20) == 0 {
		data = data[:random.IntN(len(data))]
	}
	return bytes.TrimSpace(data)
}

// change replaces, removes or repeats a value somewhere below.
func change(random *rand.Rand, tree any, values []any) any {
	if random.IntN(8) == 0 {
		return values[random.IntN(len(values))]
	}
	switch node := tree.(type) {
	case map[string]any:
		names := []string{}
		for name := range node {
			if name != "apiVersion" && name != "kind" {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return node
		}
		slices.Sort(names)
		name := names[random.IntN(len(names))]
		if random.IntN(8) == 0 {
			delete(node, name)
		} else {
			node[name] = change(random, node[name], values)
		}
	case []any:
		if len(node) == 0 {
			return node
		}
		i := random.IntN(len(node))
		if random.IntN(8) == 0 {
			return append(node, slices.Repeat([]any{node[i]}, random.IntN(600))...)
		}
		node[i] = change(random, node[i], values)
	default:
		return values[random.IntN(len(values))]
	}
	return tree
}
