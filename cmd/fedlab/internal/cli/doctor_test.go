package cli

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/doctor"
)

// silent is a report on a server that does not answer, with a call that fails because of
// that, and a note.
func silent() examined {
	at := doctor.Part{Kind: doctor.Server, Name: "cluster1.com"}
	return examined{
		Report: doctor.Report{
			Lab: "quotes", TookSeconds: 2.04,
			Calls: []doctor.Called{{From: "broker-webapp", To: "stock-quotes", Outcome: "unreachable", Stranger: "unreachable"}},
			Diagnoses: []doctor.Diagnosis{
				{
					Finding: doctor.Finding{ID: doctor.ServerSilent, Part: at, Seen: "0 of 1 pods are ready\nimage missing"}, Cause: "It does not run.", Cure: "'fedlab up' starts it.",
					Follows: []doctor.Finding{{ID: doctor.CallUnreachable, Part: doctor.Part{Kind: doctor.Call, Name: "broker-webapp->stock-quotes"}, Seen: "no route\nto it"}},
				},
				{Finding: doctor.Finding{ID: doctor.ResourceIdle, Part: doctor.Part{Kind: doctor.Resource, Name: "broker/ClusterSPIFFEID x"}, Seen: "it comes to nothing"}, Cause: "Of somebody else.", Cure: "Correct it.", Note: true},
			},
		},
		Log: []string{"level=error msg=x"},
	}
}

func TestPrintDoctor(t *testing.T) {
	const want = `server-silent: server cluster1.com
  seen     0 of 1 pods are ready; image missing
  means    It does not run.
  do       'fedlab up' starts it.
  log      level=error msg=x
  so       call-unreachable: call broker-webapp->stock-quotes: no route

resource-without-effect: resource broker/ClusterSPIFFEID x (a note)
  seen     it comes to nothing
  means    Of somebody else.
  do       Correct it.

Looked for 2.0s; 0 of 1 call answered, 0 of 1 strangers refused: 1 cause. 'fedlab explain ID' says more.
`
	var b bytes.Buffer
	if err := printDoctor(&b, silent()); err != nil || b.String() != want {
		t.Errorf("error %v, got\n%s\nwant\n%s", err, b.String(), want)
	}
	b.Reset()
	well := doctor.Report{Lab: "quotes", Well: true, Calls: []doctor.Called{{Outcome: "answered", Stranger: "refused-by-server"}}}
	if err := printDoctor(&b, examined{Report: well}); err != nil || b.String() != "Looked for 0.0s; 1 of 1 call answered, 1 of 1 strangers refused: nothing is wrong.\n" {
		t.Errorf("a well lab: error %v, got %q", err, b.String())
	}
	for want, x := range map[string]examined{
		"nothing is wrong that shows so, and nothing else is.":               {Report: well, Symptom: "x"},
		"nothing is wrong that shows so. 'fedlab doctor' says what else is.": {Symptom: "x"},
	} {
		if got := verdictOf(x); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestPrintShort: however much is wrong, it fits, and versions come first.
func TestPrintShort(t *testing.T) {
	f, err := config.For(demo.Apps()).Open("quotes")
	if err != nil {
		t.Fatal(err)
	}
	x := silent()
	for i := range 40 {
		d := x.Diagnoses[0]
		d.Part.Name, d.Seen = fmt.Sprintf("domain%d.test", i), strings.Repeat("long ", 100)
		x.Diagnoses = append(x.Diagnoses, d)
	}
	var b bytes.Buffer
	if err := printShort(&b, x, f.Topology); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != shortLines || !strings.HasPrefix(lines[0], "fedlab ") || !strings.Contains(lines[0], "SPIRE") || !strings.Contains(lines[1], "quotes: 2 clusters") ||
		!strings.HasPrefix(lines[2], "server-silent: ") || !strings.HasPrefix(lines[shortLines-1], "Looked for ") {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
	for _, line := range lines {
		if len([]rune(line)) > 220 {
			t.Errorf("a line of %d: %s", len(line), line)
		}
	}
}

func TestSearched(t *testing.T) {
	f, err := config.For(demo.Apps()).Open("quotes")
	if err != nil {
		t.Fatal(err)
	}
	for symptom, want := range map[string]doctor.ID{
		"unknown authority": doctor.CallUnknown,
		"rpc error: x509: certificate signed by unknown authority (possibly because of x)": doctor.LockedOut,
		"connection refused":              doctor.WayBlocked,
		"no identity issued":              doctor.NoEntry,
		"firewall":                        doctor.WayBlocked,
		"handshake failure":               doctor.CallRefused,
		"parentID":                        doctor.WrongParent,
		"clocks":                          doctor.CallExpired,
		"failed calling webhook \"x\": y": doctor.WebhookUnverified,
	} {
		if _, ids, err := searched(f.Topology, symptom); err != nil || !slices.Contains(ids, want) {
			t.Errorf("%q leads to %s, %v: want %s among them", symptom, ids, err, want)
		}
	}
	parts, _, err := searched(f.Topology, "http://localhost:8080/quotes/")
	if err != nil || len(parts) != 2 || parts[1].String() != "call broker-webapp->stock-quotes" {
		t.Errorf("a page leads to %v, %v", parts, err)
	}
	for symptom, want := range map[string]string{
		"http://localhost:9/x": `no workload of the lab has the page http://localhost:9/x: want one of http://localhost:8080/quotes`,
		"hiccups":              `doctor knows no symptom like "hiccups": `,
	} {
		if _, _, err := searched(f.Topology, symptom); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", symptom, err, want)
		}
	}
	// Each symptom finds itself.
	for _, s := range doctor.Symptoms() {
		if found := matching(s.Says); len(found) == 0 || found[0].Says != s.Says {
			t.Errorf("%q finds %v", s.Says, found)
		}
	}
}

func TestDoctorJUnit(t *testing.T) {
	var b bytes.Buffer
	if err := doctorJUnit(&b, silent().Report); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Time     string `xml:"time,attr"`
		Cases    []struct {
			Name     string   `xml:"name,attr"`
			Failures []string `xml:"failure"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(b.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	if read.Tests != len(doctor.IDs()) || read.Failures != 1 || len(read.Cases) != read.Tests || read.Time != "2.040" {
		t.Errorf("got %d cases, %d failures, time %s", read.Tests, read.Failures, read.Time)
	}
}
