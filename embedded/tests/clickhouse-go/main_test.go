// Package grafana asks a running `flowtrail up` as Grafana's ClickHouse data source does over HTTP: with
// clickhouse-go and the options of the plugin (its pkg/plugin/driver.go), and with LZ4, which the plugin
// takes where it may.
package grafana

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

var address string

func TestMain(m *testing.M) {
	binary, capture := os.Getenv("FLOWTRAIL_BINARY"), os.Getenv("FLOWTRAIL_CAPTURE")
	if binary == "" || capture == "" {
		fmt.Fprintln(os.Stderr, "run this with `make test-grafana-client`")
		os.Exit(2)
	}
	data, err := os.MkdirTemp("", "flowtrail-grafana-")
	if err != nil {
		panic(err)
	}
	address = freePort()
	program := exec.Command(binary, "up", "--read", capture, "--data", data,
		"--clickhouse-listen", address, "--listen", freePort())
	program.Stderr = os.Stderr
	said, err := program.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := program.Start(); err != nil {
		panic(err)
	}
	// It says where the answers are once the capture is in the tables.
	code := 1
	if bufio.NewScanner(said).Scan() {
		code = m.Run()
	}
	_ = program.Process.Signal(os.Interrupt)
	if err := program.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, "flowtrail up:", err)
		code = 1
	}
	_ = os.RemoveAll(data)
	os.Exit(code)
}

func freePort() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// The plugin's options, and its default timeouts.
func open(t *testing.T, user string, method clickhouse.CompressionMethod, settings clickhouse.Settings) *sql.DB {
	db := clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{address},
		Auth:        clickhouse.Auth{Database: "flowtrail", Username: user},
		ClientInfo:  clickhouse.ClientInfo{Products: []struct{ Name, Version string }{{"grafana", "12.0.0"}}},
		Compression: &clickhouse.Compression{Method: method},
		DialTimeout: 10 * time.Second,
		ReadTimeout: 60 * time.Second,
		HttpHeaders: map[string]string{"X-Dashboard-Uid": "flows"},
		Protocol:    clickhouse.HTTP,
		Settings:    settings,
	})
	t.Cleanup(func() { _ = db.Close() })
	return db
}

var methods = map[string]clickhouse.CompressionMethod{
	"gzip": clickhouse.CompressionGZIP, "lz4": clickhouse.CompressionLZ4, "none": clickhouse.CompressionNone,
}

func each(t *testing.T, check func(t *testing.T, db *sql.DB)) {
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			check(t, open(t, "default", method, clickhouse.Settings{"max_execution_time": 20}))
		})
	}
}

func TestTheHealthCheck(t *testing.T) {
	each(t, func(t *testing.T, db *sql.DB) {
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		var version string
		if err := db.QueryRow("SELECT version()").Scan(&version); err != nil || !strings.HasPrefix(version, "26.") {
			t.Fatal(version, err)
		}
	})
}

func TestTypesComeAsTheyAre(t *testing.T) {
	each(t, func(t *testing.T, db *sql.DB) {
		row := db.QueryRow(`SELECT toDateTime('2026-01-02 03:04:05', 'UTC'), toLowCardinality('web'), [toLowCardinality('a'), 'b'],
			map('k', 7), toIPv6('::ffff:10.0.0.1'), NULL::Nullable(UInt64), toDecimal64(1.5, 2), [[], [1, 2]]::Array(Array(UInt8)),
			toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC'), 'x'::Enum8('x' = 1), true`)
		var (
			second, milli time.Time
			low, enum     string
			lows          []string
			counts        map[string]uint8
			ip            net.IP
			null          *uint64
			decimal       any
			nested        [][]uint8
			yes           bool
		)
		if err := row.Scan(&second, &low, &lows, &counts, &ip, &null, &decimal, &nested, &milli, &enum, &yes); err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		if !second.Equal(at) || !milli.Equal(at.Add(678*time.Millisecond)) {
			t.Error(second, milli)
		}
		if low != "web" || !reflect.DeepEqual(lows, []string{"a", "b"}) || counts["k"] != 7 || enum != "x" || !yes {
			t.Error(low, lows, counts, enum, yes)
		}
		if ip.String() != "10.0.0.1" || null != nil || fmt.Sprint(decimal) != "1.5" || len(nested) != 2 || len(nested[1]) != 2 {
			t.Error(ip, null, decimal, nested)
		}
	})
}

func TestFlowsAreAllThere(t *testing.T) {
	each(t, func(t *testing.T, db *sql.DB) {
		var rows uint64
		if err := db.QueryRow("SELECT count() FROM flows").Scan(&rows); err != nil || rows == 0 {
			t.Fatal(rows, err)
		}
		found, err := db.Query("SELECT * FROM flows")
		if err != nil {
			t.Fatal(err)
		}
		defer found.Close()
		columns, _ := found.ColumnTypes()
		values := make([]any, len(columns))
		for index, column := range columns {
			values[index] = reflect.New(column.ScanType()).Interface()
		}
		read := uint64(0)
		for found.Next() {
			if err := found.Scan(values...); err != nil {
				t.Fatal(err)
			}
			read++
		}
		if found.Err() != nil || read != rows {
			t.Fatal(read, rows, found.Err())
		}
	})
}

func TestManyBlocks(t *testing.T) {
	each(t, func(t *testing.T, db *sql.DB) {
		rows, err := db.Query("SELECT number, toString(number), range(number % 3) FROM numbers(300000)")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		expected := uint64(0)
		for rows.Next() {
			var number uint64
			var text string
			var list []uint8
			if err := rows.Scan(&number, &text, &list); err != nil {
				t.Fatal(err)
			}
			if number != expected || text != fmt.Sprint(expected) || uint64(len(list)) != expected%3 {
				t.Fatal(expected, number, text, list)
			}
			expected++
		}
		if rows.Err() != nil || expected != 300_000 {
			t.Fatal(expected, rows.Err())
		}
	})
}

func TestArgumentsAreBound(t *testing.T) {
	each(t, func(t *testing.T, db *sql.DB) {
		var text string
		err := db.QueryRow("SELECT {text:String} || {n:UInt8}", clickhouse.Named("text", "it's \\ "), clickhouse.Named("n", "3")).Scan(&text)
		if err != nil || text != `it's \ 3` {
			t.Fatal(text, err)
		}
	})
}

func exception(t *testing.T, err error, code int32) {
	t.Helper()
	var exception *clickhouse.Exception
	if !errors.As(err, &exception) || exception.Code != code {
		t.Errorf("not exception %d: %v", code, err)
	}
}

func TestErrorsAreExceptions(t *testing.T) {
	each(t, func(t *testing.T, db *sql.DB) {
		_, err := db.Query("SELECT * FROM nothing")
		exception(t, err, 60)
		rows, err := db.Query("SELECT number, throwIf(number = 3000000) FROM numbers(5000000)")
		for err == nil && rows.Next() {
		}
		if err == nil {
			err = rows.Err()
		}
		exception(t, err, 395)
	})
}

func TestTimeIsLimited(t *testing.T) {
	db := open(t, "default", clickhouse.CompressionGZIP, clickhouse.Settings{"max_execution_time": 1})
	_, err := db.Query("SELECT count() FROM numbers(1000000000000)")
	exception(t, err, 159)
}

func TestACancelledQueryEnds(t *testing.T) {
	db := open(t, "default", clickhouse.CompressionGZIP, nil)
	ctx, cancel := context.WithCancel(t.Context())
	const query = "SELECT count() FROM numbers(1000000000000)"
	ended := make(chan error, 1)
	go func() {
		_, err := db.QueryContext(ctx, query)
		ended <- err
	}()
	running := func() string {
		answer, err := http.Post("http://"+address, "", strings.NewReader(
			"SELECT count() FROM system.processes WHERE startsWith(query, '"+query+"')"))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		line, _ := bufio.NewReader(answer.Body).ReadString('\n')
		return strings.TrimSpace(line)
	}
	wait := func(count string) {
		for range 3_000 {
			if running() == count {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("never %s running", count)
	}
	wait("1")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	wait("0")
}

func TestTheReaderReads(t *testing.T) {
	db := open(t, "reader", clickhouse.CompressionGZIP, clickhouse.Settings{"max_execution_time": 20})
	var rows uint64
	if err := db.QueryRow("SELECT count() FROM flows").Scan(&rows); err != nil || rows == 0 {
		t.Fatal(rows, err)
	}
	_, err := db.Exec("CREATE TABLE default.no (n UInt8) ENGINE = Memory")
	exception(t, err, 164)
	db = open(t, "reader", clickhouse.CompressionGZIP, clickhouse.Settings{"max_execution_time": 86400})
	exception(t, db.Ping(), 452)
}

func TestABatchIsInserted(t *testing.T) {
	// Grafana does not insert; the interface takes no gzip.
	for _, method := range []clickhouse.CompressionMethod{clickhouse.CompressionLZ4, clickhouse.CompressionNone} {
		db := open(t, "default", method, nil)
		for _, statement := range []string{
			"DROP TABLE IF EXISTS default.batch", "CREATE TABLE default.batch (n UInt64, s String) ENGINE = MergeTree ORDER BY n",
		} {
			if _, err := db.Exec(statement); err != nil {
				t.Fatal(err)
			}
		}
		scope, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		batch, err := scope.Prepare("INSERT INTO default.batch (n, s)")
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint64(1_000) {
			if _, err := batch.Exec(n, fmt.Sprint(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := scope.Commit(); err != nil {
			t.Fatal(err)
		}
		var count, sum uint64
		if err := db.QueryRow("SELECT count(), sum(toUInt64(s)) FROM default.batch").Scan(&count, &sum); err != nil || count != 1_000 || sum != 499_500 {
			t.Fatal(count, sum, err)
		}
	}
}
