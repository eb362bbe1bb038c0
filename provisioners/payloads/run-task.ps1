# Runs a command as a scheduled task with all rights, shows what it prints as it prints it, and exits with its code.
# A line of JSON on standard input holds the settings, so that no password stands in a file or a command line: name,
# command (as cmd takes it), user, password (empty for an account of the system), quiet (seconds without output after
# which a line says that it still runs; 0: never).
# What keeps the task itself from running is told on stderr after "aib-task: ", with exit code 2587.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$settings = @($input)[0] | ConvertFrom-Json
$log = Join-Path $env:SystemRoot "Temp\$($settings.name).log"
$output = [Console]::OpenStandardOutput()
$buffer = New-Object byte[] 65536
$file = $null
$task = $null
$failed = 2587
$neverRan = 267011
$stateQueued = 2
$stateRunning = 4

function Copy-Output {
    # Bytes as they are, of a file that is still being written; true when there were any.
    if ($null -eq $script:file) {
        if (-not [IO.File]::Exists($log)) { return $false }
        $script:file = New-Object IO.FileStream($log, 'Open', 'Read', 'ReadWrite, Delete')
    }
    $any = $false
    while (($count = $script:file.Read($buffer, 0, $buffer.Length)) -gt 0) {
        $output.Write($buffer, 0, $count)
        $any = $true
    }
    if ($any) { $output.Flush() }
    return $any
}

try {
    $scheduler = New-Object -ComObject Schedule.Service
    $scheduler.Connect()
    $folder = $scheduler.GetFolder('\')
    $definition = $scheduler.NewTask(0)
    $definition.Principal.RunLevel = 1
    $definition.Settings.ExecutionTimeLimit = 'PT0S'
    $definition.Settings.DisallowStartIfOnBatteries = $false
    $definition.Settings.StopIfGoingOnBatteries = $false
    $definition.Settings.Priority = 4
    $action = $definition.Actions.Create(0)
    $action.Path = Join-Path $env:SystemRoot 'System32\cmd.exe'
    $action.Arguments = "/c `"chcp 65001 >nul & $($settings.command) > `"$log`" 2>&1`""
    $password = $null
    $logon = 5
    if ($settings.password) {
        $password = $settings.password
        $logon = 1
    }
    $task = $folder.RegisterTaskDefinition($settings.name, $definition, 6, $settings.user, $password, $logon, $null)
    [void]$task.Run($null)
    $mustStart = [DateTime]::UtcNow.AddSeconds(60)
    $lastWord = [DateTime]::UtcNow
    $started = $false
    do {
        Start-Sleep -Milliseconds 200
        $state = $task.State
        $started = $started -or $state -eq $stateRunning -or $task.LastTaskResult -ne $neverRan
        if (-not $started -and [DateTime]::UtcNow -gt $mustStart) { throw 'the task did not start within 60 seconds' }
        if (Copy-Output) {
            $lastWord = [DateTime]::UtcNow
        } elseif ($settings.quiet -gt 0 -and ([DateTime]::UtcNow - $lastWord).TotalSeconds -ge $settings.quiet) {
            $lastWord = [DateTime]::UtcNow
            [Console]::Out.WriteLine("... still running at $([DateTime]::UtcNow.ToString('HH:mm:ss')) UTC")
        }
    } while (-not $started -or $state -eq $stateRunning -or $state -eq $stateQueued)
    $code = $task.LastTaskResult
    [void](Copy-Output)
} catch {
    $code = $failed
    [Console]::Error.WriteLine('aib-task: ' + $_.Exception.GetBaseException().Message)
} finally {
    if ($null -ne $file) { $file.Close() }
    if ($null -ne $task) {
        try { $task.Stop(0) } catch { }
        try { $folder.DeleteTask($settings.name, 0) } catch { }
    }
    Remove-Item -Path $log -Force -ErrorAction SilentlyContinue
}
exit $code
