package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/live"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/scenarios/report"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// TestReplayOfARecord: each second of a run is a frame with what the record had seen by then.
func TestReplayOfARecord(t *testing.T) {
	const market, broker = "cluster1.com", "cluster2.com"
	began := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	at := func(second float64) time.Time { return began.Add(time.Duration(second * float64(time.Second))) }
	server := func(authority string) *traffic.Party { return &traffic.Party{Authority: authority} }
	r := trial.Record{
		APIVersion: trial.RecordVersion, Kind: "ScenarioRecord", Scenario: "rotation/x509-authority", Claim: "it works", Lab: "quotes", Labels: []string{},
		On: trial.On{Truster: broker, Trusted: market, Profile: "https_spiffe", Mode: "crd"}, Began: began, Ended: at(3),
		Steps:   []trial.Step{{Name: "publish", Began: at(1), Took: time.Second}},
		Windows: []trial.Window{{Name: "endpoint/market", Injected: at(2), Felt: at(2), Healed: at(3)}},
		Holdings: []trial.Holding{
			{At: at(0), Holder: market, Of: market, X509: []string{"old"}}, {At: at(0), Holder: broker, Of: market, X509: []string{"old"}, State: "in sync"},
			{At: at(1.5), Holder: market, Of: market, X509: []string{"old", "new"}}, {At: at(2.5), Holder: broker, Of: market, X509: []string{"old", "new"}},
		},
		Streams: []traffic.Stream{{
			From: broker, Order: traffic.Order{Name: "fresh", Server: "spiffe://" + market + "/probe", Address: "10.0.0.1:1", Every: time.Second, Within: time.Second, Connection: traffic.Fresh},
			Began: at(.5), Ended: at(3),
			Calls: []traffic.Call{
				{Number: 1, At: at(.5), Outcome: traffic.Answered, Server: server("old")}, {Number: 2, At: at(1.5), Outcome: traffic.Unreachable, Detail: "refused"},
				{Number: 3, At: at(2.5), Outcome: traffic.Answered, Server: server("new")},
			},
		}},
		Marks: []trial.Mark{}, Measures: []trial.Measure{}, Verdicts: []trial.Verdict{}, Result: trial.Holds,
	}
	dir := t.TempDir()
	if err := report.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	frames, err := framesOf(filepath.Join(dir, report.FileOf(r)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	ids := func(l watch.Look) (all string) {
		for _, i := range l.Identities {
			all += i.Authority
		}
		return all
	}
	for _, f := range frames {
		var own, held, call string
		for _, d := range f.Domains {
			for _, a := range d.Own {
				own += a.ID
			}
		}
		p, _ := f.Pair(broker, market)
		for _, a := range p.Held {
			held += a.ID
		}
		for _, c := range f.Calls {
			call += c.Outcome + c.Problem
		}
		got = append(got, fmt.Sprintf("%s: own %s, held %s %s, call %s %s, %s", f.At.Format("05"), own, held, p.State, call, ids(f.Look), strings.Join(f.Doing[1:], ", ")))
	}
	if want := []string{
		"00: own old, held old in sync, call  , ",
		"01: own old, held old in sync, call answered old, step: publish",
		"02: own oldnew, held old in sync, call failedunreachable: refused , fault: endpoint/market",
		"03: own oldnew, held oldnew in sync, call answered new, ",
		"04: own oldnew, held oldnew in sync, call answered new, ",
	}; !slices.Equal(got, want) {
		t.Errorf("frames are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	recording := filepath.Join(dir, "look.jsonl")
	file, err := os.Create(recording)
	if err != nil {
		t.Fatal(err)
	}
	if err := live.Record(file)(frames[0]); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if again, err := framesOf(recording); err != nil || len(again) != 1 {
		t.Errorf("a recording has %d frames, %v", len(again), err)
	}
	r.Scenario = "another"
	if err := report.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	if _, err := framesOf(dir); err == nil || err.Error() != "replay "+dir+": it has 2 records: name the file of one" {
		t.Errorf("two records: %v", err)
	}
	if _, err := framesOf(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "it is no recording and no record of a scenario: ") {
		t.Errorf("nothing there: %v", err)
	}
}
