"""PowerShell's language as the guest interprets it, by what Microsoft documents (about_*)."""

from __future__ import annotations

import pytest

LANGUAGE = [
    ("'single $x `n'", "single $x `n"),
    ("$x = 3; \"a $x ${x}b $($x + 1) `$x `\"q`\" \"\"\"", 'a 3 3b 4 $x "q" "'),
    ("$a = @{n = 'v'}; \"$a.n and $($a.n)\"", "System.Collections.Hashtable.n and v"),
    ("$x = @'\nline 'one' $y\n  two\n'@\n$x", "line 'one' $y\n  two"),
    ("$y = 5\n$x = @\"\nline $y \"q\"\n\"@\n$x", 'line 5 "q"'),
    ("1 + 2 * 3", "7"),
    ("7 / 2", "3.5"),
    ("6 / 2", "3"),
    ("7 % 3", "1"),
    ("'a' * 3 + 'b'", "aaab"),
    ("'1' + 1", "11"),
    ("1 + '1'", "2"),
    ("2147483647 + 1", "2147483648"),
    ("0x10", "16"),
    ("0xFFFFFFFF", "-1"),
    ("1KB + 1MB", "1049600"),
    ("[int]2.5, [int]3.5", "2|4"),
    ("[math]::Round(2.567, 1)", "2.6"),
    ("1..4 -join '-'", "1-2-3-4"),
    ("'a,b;c' -split '[,;]'", "a|b|c"),
    ("'a b' -split ' ', 2", "a|b"),
    ("-split ' a  b '", "a|b"),
    ("'abc' -replace 'b(.)', '<$1>'", "a<c>"),
    ("'ABC' -eq 'abc'; 'ABC' -ceq 'abc'", "True|False"),
    ("1, 2, 3, 2 -eq 2", "2|2"),
    ("@(1, 2, 3) -contains 2; 2 -in 1, 2", "True|True"),
    ("'file.txt' -like '*.TXT'; 'x' -notlike 'y*'", "True|True"),
    ("'ab12' -match '(\\d+)'; $matches[1]", "True|12"),
    ("'k=v' -match '(?<key>\\w)=(?<value>\\w)' | Out-Null; $matches.value", "v"),
    ("'{0:N2} {1,5}|{2:X4} {3:P0}' -f 1234.5, 'a', 255, 0.5", "1,234.50     a|00FF 50 %"),
    ("'0x{0:X8}' -f -2147024894", "0x80070002"),
    ("$null -eq 0; -not $null; !'' ; [bool]'False'", "False|True|True|True"),
    ("[bool]@(); [bool]@(0); [bool]@(0, 0)", "False|False|True"),
    ("5 -band 6; 5 -bor 2; -bnot 0", "4|7|-1"),
    ("$i = 1; $i++; ++$i; $i += 2; $i", "5"),
    ("$a = 1, 2; $a += 3; $a.Count; $a[-1]; $a[0..1] -join ','", "3|3|1,2"),
    ("$a = @(); $a.Count; $a += 'x'; $a.Length", "0|1"),
    ("@($null).Count; @(Get-Process -Name nosuch -ErrorAction SilentlyContinue).Count", "1|0"),
    ("$h = @{a = 1; 'b c' = 2}; $h.Count; $h['b c']; $h.a; $h.ContainsKey('A')", "2|2|1|True"),
    ("$o = [ordered]@{z = 1; a = 2}; $o.Keys -join ','", "z,a"),
    ("$o = [pscustomobject]@{n = 1; m = 'x'}; $o.m; \"$o\"", "x|@{n=1; m=x}"),
    ("$a, $b = 1, 2, 3; $a; $b", "1|2|3"),
    ("if (0) { 'a' } elseif ('') { 'b' } else { 'c' }", "c"),
    ("$i = 0; while ($true) { $i++; if ($i -eq 2) { continue }; if ($i -gt 3) { break }; $i }", "1|3"),
    ("$i = 0; do { $i++ } while ($i -lt 3); $i; do { $i-- } until ($i -le 0); $i", "3|0"),
    ("for ($i = 0; $i -lt 3; $i++) { $i }", "0|1|2"),
    ("foreach ($x in 1, 2) { $x * 2 }", "2|4"),
    (":outer foreach ($x in 1, 2) { foreach ($y in 1, 2) { if ($y -eq 2) { continue outer }; \"$x$y\" } }", "11|21"),
    ("switch ('b') { 'a' { 1 } 'b' { 2 } default { 3 } }", "2"),
    ("switch -regex ('abc') { '^a' { 'starts' } 'z' { 'no' } }", "starts"),
    ("switch (1, 5) { { $_ -gt 3 } { \"big $_\" } default { \"small $_\" } }", "small 1|big 5"),
    ("function f($a, $b = 2) { \"$a $b $($args.Count)\" }; f 1; f 1 3 4; f -b 9 -a 8", "1 2 0|1 3 1|8 9 0"),
    ("function f { param([switch] $On, [int] $N) \"$On $N\" }; f -On -N '3'; f", "True 3|False 0"),
    ("function f { process { $_ * 2 } }; 1, 2 | f", "2|4"),
    ("filter f { $_ + 1 }; 1, 2 | f", "2|3"),
    ("function f { $input | ForEach-Object { \"<$_>\" } }; 'a', 'b' | f", "<a>|<b>"),
    ("function f { param([Parameter(ValueFromPipeline)] $X) begin {'s'} process {$X} end {'e'} }; 1, 2 | f", "s|1|2|e"),
    ("function f { return 1; 2 }; f", "1"),
    ("function f([string[]] $Names) { $Names.Count }; f a, b, c", "3"),
    ("function g { \"$args\" }; function f { g @args }; f 1 two", "1 two"),
    ("$p = @{Path = 'a'; ChildPath = 'b'}; Join-Path @p", "a\\b"),
    ("$x = 1; function f { $x = 2; $script:y = 3 }; f; $x; $y", "1|3"),
    ("& { $x = 1 }; \"[$x]\"; . { $x = 1 }; \"[$x]\"", "[]|[1]"),
    ("$b = { param($n) $n * 2 }; & $b 4; $b.Invoke(5)", "8|10"),
    ("$env:MINE = 'v'; $env:mine; cmd /c echo %MINE%", "v|v"),
    ("1..5 | Where-Object { $_ % 2 } | ForEach-Object { $_ * 10 }", "10|30|50"),
    ("1..3 | % { $s = 0 } { $s += $_ } { $s }", "6"),
    ("1..10 | Select-Object -First 2; 1..5 | select -Skip 3; 1..5 | select -Last 1", "1|2|4|5|5"),
    ("'b', 'a', 'c' | Sort-Object -Descending", "c|b|a"),
    ("(1..4 | Measure-Object -Sum).Sum; (1, 2 | measure).Count", "10|2"),
    ("$x = if ($true) { 'yes' } else { 'no' }; $x", "yes"),
    ("$x = foreach ($i in 1..2) { $i }; $x.Count", "2"),
    ("\"$(foreach ($i in 1..3) { $i })\"", "1 2 3"),
    ("try { throw 'bad' } catch { \"caught $_\" } finally { 'last' }", "caught bad|last"),
    ("try { [int]::Parse('x') } catch [FormatException] { 'format' } catch { 'other' }", "format"),
    ("try { Get-Item c:\\none -ErrorAction Stop } catch { $_.Exception.GetType().Name }", "ItemNotFoundException"),
    ("try { 1 / 0 } catch { $_.Exception.Message }", "Attempted to divide by zero."),
    ("try { try { throw 'a' } catch { throw } } catch { \"again $_\" }", "again a"),
    ("Get-Item c:\\none -ErrorAction SilentlyContinue; $?; $Error.Count", "False|1"),
    ("cmd /c exit 3; $LASTEXITCODE; $?", "3|True"),
    ("cmd /c exit 3; $?", "False"),
    ("$x = cmd /c \"echo a& echo b\"; $x.Count; $x[1]", "2|b"),
    ("'x', 'y' | cmd /c findstr y", "y"),
    ("'abc'.Substring(1).ToUpper(); 'a-b'.Split('-')[1]; ' x '.Trim().Length", "BC|b|1"),
    ("[string]::IsNullOrEmpty(''); [string]::Join(',', @(1, 2))", "True|1,2"),
    ("(1, 2, 3).Where({ $_ -gt 1 }).Count; (1, 2).ForEach({ $_ + 1 }) -join ','", "2|2,3"),
    ("$l = New-Object System.Collections.ArrayList; [void]$l.Add('a'); $l.Count", "1"),
    ("[Environment]::GetEnvironmentVariable('SystemRoot'); \"$env:SystemRoot\\x\"", "C:\\Windows|C:\\Windows\\x"),
    ("$s = [scriptblock]::Create('1 + 1'); & $s", "2"),
    ("Invoke-Expression '$q = 4; $q * 2'", "8"),
    ("(Get-Date '2020-01-31').AddDays(1).ToString('yyyy-MM-dd')", "2020-02-01"),
    ("([datetime]'2020-01-02' - [datetime]'2020-01-01').TotalHours", "24"),
    ("[Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes('hé'))", "aMOp"),
    ("@{a = 1; b = @(1, 2)} | ConvertTo-Json -Compress", '{"a":1,"b":[1,2]}'),
    ("('{\"a\": {\"b\": [1, 2]}}' | ConvertFrom-Json).a.b[1]", "2"),
    ("1, 2 |\n  ForEach-Object {\n    $_\n  } # comment\n<# block\ncomment #>", "1|2"),
    ("Write-Output one `\n  two", "one|two"),
    ("& 'Write-Output' x", "x"),
    ("Microsoft.PowerShell.Utility\\Write-Output x", "x"),
    ("[version]'10.0.17763' -gt [version]'6.3'", "True"),
    ("(Get-Command Get-Service).Name; [bool](Get-Command nosuch-thing -EA SilentlyContinue)", "Get-Service|False"),
    ("$a = [byte[]](1, 2, 255); $a.Length; [BitConverter]::ToString($a)", "3|01-02-FF"),
    ("$PSVersionTable.PSVersion.Major; $PID -gt 0", "5|True"),
    ("Set-StrictMode -Version Latest; try { $never } catch { $_.Exception.Message }",
     "The variable '$never' cannot be retrieved because it has not been set."),
    ("trap { \"trapped $_\"; continue } throw 'bad'; 'after'", "trapped bad|after"),
    ("$o = [pscustomobject]@{T = 'x'}; if (Where-Object -InputObject $o { $_.T -eq 'x' }) { 'yes' }", "yes"),
    ("$a, $b = 'include:$_.T:x' -split ':', 2; $a; $b", "include|$_.T:x"),
    ("$f = 'a', 'b' | ForEach-Object { New-Object PSObject -Property @{ N = $_ } }; $f[1].N; $f.N -join ','", "b|a,b"),
    ("$n = 'x'; \"$($n)_y ${n}_z $n`_w\"", "x_y x_z x_w"),
    ("('a' | Get-Member -Name Length | Measure-Object).Count", "1"),
    ("$s = New-TimeSpan -Minutes 1; (Get-Date).Subtract((Get-Date).AddMinutes(-2)) -ge $s", "True"),
    ("Set-Variable -Name x -Value 4; $x; Test-Path variable:x", "4|True"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), LANGUAGE, ids=range(len(LANGUAGE)))
def test_the_language(shell, windows, script, expected):
    ended = shell.ps(script)
    assert (ended.out.replace("\r\n", "\n").rstrip("\n").replace("\n", "|"), ended.err) == (
        expected.replace("\n", "|"),
        "",
    )
    assert windows.unknown == []


CODES = [
    ("exit 7", 7, 7),
    ("exit -1", 0xFFFFFFFF, 0xFFFFFFFF),
    ("exit 3221225477", 0, 0),  # no Int32: PowerShell's GetExitException counts it as 0
    ("throw 'x'", 1, 1),
    ("Write-Error 'x'", 0, 1),  # -File: 0 unless something terminates; -Command: 1 when the last command failed
    ("cmd /c exit 5", 0, 1),
    ("cmd /c exit 5; 'more'", 0, 0),
    ("cmd /c exit 5; exit $LASTEXITCODE", 5, 5),
    ("no-such-command", 0, 1),
    ("no-such-command; 'more'", 0, 0),
    ("$ErrorActionPreference = 'Stop'; Get-Item c:\\none; 'more'", 1, 1),
    ("[int]::Parse('x'); 'more'", 0, 0),
    ("if ($true) {", 1, 1),
    ("& { exit 4 }; 'more'", 4, 4),
    ("function f { exit 6 }; f; 'more'", 6, 6),
    ("'x' | ForEach-Object { exit 8 }", 8, 8),
    ("$host.SetShouldExit(101); exit", 101, 101),
    ("", 0, 0),
]


@pytest.mark.parametrize(("script", "as_file", "as_command"), CODES, ids=range(len(CODES)))
def test_exit_codes(shell, windows, script, as_file, as_command):
    assert shell.file(script).code == as_file
    assert shell.ps(script).code == as_command
    assert windows.unknown == []


def test_a_script_called_by_another_sets_lastexitcode_and_goes_on(shell, windows):
    windows.files.write("C:\\inner.ps1", b"exit 3\r\n'never'")
    ended = shell.ps("& c:\\inner.ps1; \"code $LASTEXITCODE\"; . c:\\inner.ps1; 'after'; exit $LASTEXITCODE")
    assert (ended.code, ended.out) == (3, "code 3\r\nafter\r\n")


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe"])
def test_the_mark_of_a_script_decides_its_encoding(shell, mark):
    text = "Write-Output 'é ☃'\r\n"
    data = mark + text.encode("utf-8" if mark[0] == 0xEF else "utf-16-le")
    assert shell.file(data).out == "é ☃\r\n"


def test_without_a_mark_it_is_ansi(shell):
    assert shell.file("'é'".encode()).out == "Ã©\r\n"


def test_a_script_of_two_megabytes(shell):
    assert shell.file(("# " + "x" * 1000 + "\r\n") * 2000 + "exit 9").code == 9


def test_errors_are_shown_with_their_place(shell):
    ended = shell.file("'before'\n  throw 'bad thing'\n'after'")
    assert ended.out == "before\r\n"
    assert ended.err.startswith("bad thing\r\nAt C:\\script.ps1:2 char:3\r\n+   throw 'bad thing'\r\n+   ~~~")
    assert "FullyQualifiedErrorId : bad thing" in ended.err


def test_errors_of_an_encoded_command_are_clixml(shell):
    import base64

    encoded = base64.b64encode("Write-Error 'a <b>'".encode("utf-16-le")).decode()
    err = shell(f"powershell -EncodedCommand {encoded}").err
    assert err.startswith("#< CLIXML\r\n<Objs Version=")
    assert '<S S="Error">' in err
    assert "a &lt;b&gt;_x000D__x000A_" in err


def test_parameters_of_a_file(shell):
    script = 'param([string] $Name, [switch] $On, [int] $N = 1)\n"$Name $On $N $($args.Count)"'
    assert shell.file(script, "-Name", "x", "-On").out == "x True 1 0\r\n"
    assert shell.file(script, '"two words"', "5").out == "two words False 5 0\r\n"


def test_standard_input_is_the_pipeline_of_a_script(shell):
    assert shell.ps("begin { 'b' } process { \"<$_>\" } end { 'e' }", b"1\r\n2\r\n").out == "b\r\n<1>\r\n<2>\r\ne\r\n"
    assert shell.ps("@($input).Count", b"1\r\n2\r\n").out == "2\r\n"


@pytest.mark.parametrize(
    "script",
    ["class X { }", "Get-Nonsense", "[System.Nonsense]::Do()", "Get-Service -Nonsense x", "'x'.Nonsense()",
     "New-Object -ComObject Nonsense.Thing", "some.exe", "(Get-Service WinRM).Nonsense", "try { some.exe } catch { }"],
)  # fmt: skip
def test_what_is_not_known_fails_loudly(shell, windows, script):
    ended = shell.ps(f"{script}\n'after'")
    assert ended.code == 22222
    assert "does not know" in ended.err
    assert ended.out == ""
    assert len(windows.unknown) == 1
